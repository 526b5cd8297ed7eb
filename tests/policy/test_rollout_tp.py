"""Which engine sizes a model can be divided over: vLLM's own conditions, written out again."""

import itertools

import pytest

from igrpo_mcore.config.schema import ParallelConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.families import architecture_of
from igrpo_mcore.policy.architecture import check_layout
from igrpo_mcore.weights.rules import qkv
from tests.support.checkpoints import hf_config

SMOLLM2 = dict(
    hidden=576,
    intermediate_size=1536,
    num_attention_heads=9,
    num_key_value_heads=3,
    head_dim=64,
    vocab_size=49152,
    tie_word_embeddings=True,
)


def check(config, rollout_tp: int, tp: int = 1) -> None:
    world = rollout_tp * tp
    check_layout(architecture_of(config), ParallelConfig(tp=tp), rollout_tp, world)


def kv_heads_of_rank(kv_heads: int, rank: int, tp: int) -> range:
    """vLLM 0.32, QKVParallelLinear: equal shares, or rank // replicas where ranks outnumber heads."""
    if kv_heads >= tp:
        return range(rank * kv_heads // tp, (rank + 1) * kv_heads // tp)
    head = rank // (tp // kv_heads)
    return range(head, head + 1)


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 4, 6, 12])
def test_whole_key_value_heads_go_to_each_rank_or_the_size_is_refused(kv_heads):
    accepted = []
    for tp in (1, 2, 3, 4, 6, 12):
        config = hf_config(
            "llama", num_attention_heads=12, num_key_value_heads=kv_heads, vocab_size=192, hidden=192
        )
        if (kv_heads % tp if kv_heads >= tp else tp % kv_heads) != 0:  # vLLM's assertions
            with pytest.raises(
                UserError, match=rf"rollout.tp={tp} would cut through key-value heads .*; choose"
            ):
                check(config, tp)
            continue
        check(config, tp)
        accepted.append(tp)
        key = qkv("qkv", ("q", "k", "v"), heads=12, kv_heads=kv_heads, head_dim=4, inner=()).tensors[1]
        for rank in range(tp):
            (run,) = key.engine_runs(rank, tp)
            heads = kv_heads_of_rank(kv_heads, rank, tp)
            assert (run.start, run.length) == (4 * heads.start, 4 * len(heads))
    assert {1, 12} <= set(accepted)


def test_smollm2_over_three_ranks():
    for tp, rollout_tp in itertools.product((1, 3), (1, 3)):
        check(hf_config("llama", **SMOLLM2), rollout_tp, tp)
    with pytest.raises(UserError, match=r"rollout.tp=2 does not divide the attention heads \(9\)"):
        check(hf_config("llama", **SMOLLM2), 2)


@pytest.mark.parametrize(
    ("family", "options", "tp", "message"),
    [
        ("qwen3", {"intermediate_size": 258}, 4, r"columns of the MLP \(width 258\); choose one of \[1, 2\]"),
        (
            "llama",
            {
                "hidden": 192,
                "num_attention_heads": 6,
                "num_key_value_heads": 3,
                "vocab_size": 151936,
                "intermediate_size": 96,
            },
            3,
            r"rows of the vocabulary \(151936, padded to a multiple of 64\); choose one of \[1\]",
        ),
        ("nemotron_h", {"n_groups": 2}, 4, r"Mamba groups \(there are 2\); choose one of \[1, 2\]"),
        ("nemotron_h", {"mamba_num_heads": 6, "n_groups": 1}, 4, r"Mamba heads \(there are 6\)"),
    ],
)
def test_other_cuts_are_named(family, options, tp, message):
    with pytest.raises(UserError, match=rf"rollout.tp={tp} would cut through " + message):
        check(hf_config(family, **options), tp)


def test_a_single_mamba_group_is_copied():
    check(hf_config("nemotron_h", n_groups=1), 4)
