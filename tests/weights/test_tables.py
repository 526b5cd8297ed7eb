"""The rules of weight tables against Megatron's layouts, and checkpoints against a table."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from igrpo_mcore.errors import UserError
from igrpo_mcore.families import table_for
from igrpo_mcore.weights.checkpoint import SINGLE, check_against_table, check_head_copy, open_checkpoint
from igrpo_mcore.weights.rules import Block, Run, fused, gate_up, qkv, row
from tests.support.checkpoints import hf_config, make_checkpoint


def numbered(shape: tuple[int, ...]) -> Tensor:
    return torch.arange(torch.Size(shape).numel()).reshape(shape)


def shard(rule, tensors: dict[str, Tensor], rank: int, size: int) -> Tensor:
    """A parameter filled by its rule's segments."""
    local = torch.full(rule.local_shape(size), -1)
    along = local.shape[rule.dim]
    for segment in rule.segments(rank, size, along):
        source = tensors[segment.tensor].narrow(rule.dim, segment.run.start, segment.run.length)
        local.narrow(rule.dim, segment.offset, segment.run.length).copy_(source)
    return local


sizes = st.sampled_from([1, 2, 4])


@settings(max_examples=40, deadline=None)
@given(kv=st.integers(1, 4), queries=st.integers(1, 3), head_dim=st.sampled_from([2, 4]), tp=sizes)
def test_qkv_is_megatrons_interleaving_by_group(kv, queries, head_dim, tp):
    heads, hidden = kv * queries, 6
    if (heads + 2 * kv) * head_dim % tp:
        return
    q, k, v = (numbered((n * head_dim, hidden)) + 1000 * i for i, n in enumerate((heads, kv, kv)))
    groups = [
        torch.cat([q.view(kv, -1, hidden)[g], k.view(kv, -1, hidden)[g], v.view(kv, -1, hidden)[g]])
        for g in range(kv)
    ]
    whole = torch.cat(groups)  # megatron.core.transformer.attention: [ng, np/ng + 2, hn] rows
    rule = qkv("qkv", ("q", "k", "v"), heads, kv, head_dim, (hidden,))
    for rank, expected in enumerate(whole.chunk(tp)):
        assert torch.equal(shard(rule, {"q": q, "k": k, "v": v}, rank, tp), expected)


@settings(max_examples=20, deadline=None)
@given(ffn=st.integers(1, 5), tp=sizes)
def test_gate_up_and_row(ffn, tp):
    ffn *= tp
    gate, up = numbered((ffn, 3)), numbered((ffn, 3)) + 1000
    fc1 = gate_up("fc1", "gate", "up", (ffn, 3))
    down = numbered((3, ffn))
    fc2 = row("fc2", "down", (3, ffn))
    for rank in range(tp):
        expected = torch.cat([gate.chunk(tp)[rank], up.chunk(tp)[rank]])
        assert torch.equal(shard(fc1, {"gate": gate, "up": up}, rank, tp), expected)
        assert torch.equal(shard(fc2, {"down": down}, rank, tp), down.chunk(tp, 1)[rank])


@settings(max_examples=20, deadline=None)
@given(inner=st.integers(1, 3), states=st.integers(1, 3), heads=st.integers(1, 2), tp=sizes)
def test_mamba_in_proj_divides_each_block(inner, states, heads, tp):
    lengths = [inner * tp, inner * tp, states * tp, states * tp, heads * tp]
    whole = numbered((sum(lengths), 2))
    rule = fused("in_proj", "w", tuple(Block(n, n) for n in lengths), (2,))
    blocks = whole.split(lengths)
    for rank in range(tp):
        expected = torch.cat([block.chunk(tp)[rank] for block in blocks])
        assert torch.equal(shard(rule, {"w": whole}, rank, tp), expected)


def test_engine_shares_of_key_value_heads_and_vocabulary():
    rule = qkv("qkv", ("q", "k", "v"), heads=8, kv_heads=2, head_dim=4, inner=(1,))
    key = rule.tensors[1]
    # four engine ranks share two key heads: ranks 0, 1 the first, ranks 2, 3 the second
    assert [key.engine_runs(r, 4)[0].start for r in range(4)] == [0, 0, 4, 4]
    # SmolLM2-135M's 9 and 3 heads over nine ranks
    key = qkv("qkv", ("q", "k", "v"), heads=9, kv_heads=3, head_dim=64, inner=(1,)).tensors[1]
    assert [key.engine_runs(r, 9) for r in (0, 2, 3, 8)] == [(Run(64 * h, 64),) for h in (0, 0, 1, 2)]
    embedding = table_for(hf_config("llama", vocab_size=130)).tensors["model.embed_tokens.weight"]
    # vLLM pads 130 rows to 192: 96 a rank, of which the second has 34 real ones
    assert [(r.start, r.length) for i in range(2) for r in embedding.engine_runs(i, 2)] == [(0, 96), (96, 34)]
    assert embedding.engine_runs(3, 4)[0].length == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), "lacks tensor model.norm.weight"),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(3)}),
            r"model.norm.weight of shape \[3\], its config asks for \[64\]",
        ),
        (lambda t: t.update({"model.extra": torch.ones(3)}), "model.extra that its config does not ask for"),
    ],
)
def test_damaged_checkpoint_is_named(tmp_path, damage, message):
    from safetensors.torch import load_file, save_file

    folder = make_checkpoint(tmp_path, "llama", hidden=64, layers=1)
    tensors = load_file(folder / "model.safetensors")
    damage(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=message):
        check_against_table(open_checkpoint(folder), table_for(hf_config("llama", hidden=64, layers=1)))


def test_folder_without_weights_and_damaged_file(tmp_path):
    with pytest.raises(UserError, match="no safetensors files"):
        open_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        open_checkpoint(tmp_path)


def test_tied_checkpoint_may_carry_its_head_where_it_is_the_embedding(tmp_path):
    from safetensors.torch import load_file, save_file

    table = table_for(hf_config("llama", hidden=64, layers=1, tie_word_embeddings=True))
    assert not table_for(hf_config("llama")).may_ignore("lm_head.weight")
    file = make_checkpoint(tmp_path, "llama", hidden=64, layers=1, tie_word_embeddings=True) / SINGLE
    tensors = load_file(file)
    head = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors | {"lm_head.weight": head}, file)
    checkpoint = open_checkpoint(tmp_path)
    check_against_table(checkpoint, table)
    check_head_copy(checkpoint, table)
    head[127, 63] += 1
    save_file(tensors | {"lm_head.weight": head}, file)
    with pytest.raises(
        UserError, match=r"lm_head.weight unlike model.embed_tokens.weight .* set that to false"
    ):
        check_head_copy(checkpoint, table)
