"""The plan of a push on made-up layouts, carried out in this process; checksums; the shard tensor."""

import random
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from igrpo_mcore.families import table_for
from igrpo_mcore.weights.checksum import add, checksum
from igrpo_mcore.weights.holdings import Holding, allgather_bytes, source_cells
from igrpo_mcore.weights.push_plan import everything, plan_push, wanted_by_engines, wanted_by_writers
from igrpo_mcore.weights.rules import HFTensor, Run
from igrpo_mcore.weights.shard_tensor import ShardTensor
from igrpo_mcore.weights.table import EMBEDDING, OUTPUT, Table
from tests.support.checkpoints import FAMILIES, hf_config


@dataclass
class Layout:
    """Ranks of a made-up job, ordered tp, then dp, then pp, as Megatron orders them."""

    table: Table
    values: dict[str, Tensor]
    held: list[dict[str, Holding]]
    shards: list[dict[str, Tensor]]


def lay_out(table: Table, tp: int, pp: int, dp: int, seed: int = 0) -> Layout:
    torch.manual_seed(seed)
    values = {name: torch.randn(tensor.shape) for name, tensor in table.tensors.items()}
    layers = sorted({int(p.split(".")[2]) for p in table.by_param if p.startswith("decoder.layers.")})
    cuts = sorted(random.Random(seed).sample(range(1, len(layers)), pp - 1))  # uneven stages
    held, shards = [], []
    for rank in range(tp * dp * pp):
        stage, tp_rank = rank // (tp * dp), rank % tp
        mine = set(layers[([0, *cuts])[stage] : [*cuts, len(layers)][stage]])
        holding, tensors = {}, {}
        for param, rule in table.by_param.items():
            parts = param.split(".")
            if parts[1] == "layers":
                here = int(parts[2]) in mine
            else:
                here = stage == (0 if param == EMBEDDING else pp - 1)
            if not here or (param == OUTPUT and table.tied and pp == 1):
                continue
            local = torch.full(rule.local_shape(tp), torch.nan)
            along = local.shape[rule.dim] if rule.dim is not None else 0
            segments = tuple(rule.segments(tp_rank, tp, along))
            for s in segments:
                dim = table.tensors[s.tensor].dim
                part = values[s.tensor].narrow(dim, s.run.start, s.run.length)
                local.narrow(dim, s.offset, s.run.length).copy_(part)
            holding[param], tensors[param] = Holding(segments, torch.float32), local
        held.append(holding)
        shards.append(tensors)
    return Layout(table, values, held, shards)


layouts = st.tuples(
    st.sampled_from(FAMILIES),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.integers(0, 5),
)


@settings(max_examples=25, deadline=None)
@given(layouts, st.sampled_from([1, 2, 4]))
def test_every_engine_rank_gets_its_share_and_nothing_travels_twice(layout, rollout_tp):
    family, tp, pp, dp, tied, seed = layout
    world = tp * pp * dp
    if world % rollout_tp or (tied and family == "nemotron_h"):
        return
    odd_vocabulary = 97 + seed
    config = hf_config(family, hidden=64, vocab_size=odd_vocabulary, tie_word_embeddings=tied)
    if family == "nemotron_h" and rollout_tp == 4:
        config.n_groups = 4
    made = lay_out(table_for(config), tp, pp, dp, seed)
    wanted = wanted_by_engines(rollout_tp)
    needed = 0
    for rank in range(world):
        plan = plan_push(made.table, made.held, rank, wanted, 60_000, torch.float32)
        arrived = {}
        for bucket in plan.buckets:
            for arrival in bucket.arrivals:
                spec = made.table.tensors[arrival.tensor]
                parts = []
                for t in arrival.transfers:
                    source = made.shards[t.source][t.param]
                    parts.append(source.narrow(spec.dim, t.offset, t.run.length))
                    held_here = any(
                        s.tensor == t.tensor and s.run.intersect(t.run).length
                        for h in made.held[rank].values()
                        for s in h.segments
                    )
                    if t.source != rank:
                        assert not held_here, "travelled though this rank holds it"
                        needed += spec.run_bytes(t.run, torch.float32)
                arrived[arrival.tensor] = torch.cat(parts, spec.dim)
        for name, spec in made.table.tensors.items():
            runs = spec.engine_runs(rank % rollout_tp, rollout_tp)
            expected = torch.cat(
                [made.values[name].narrow(spec.dim, r.start, r.length) for r in runs], spec.dim
            )
            assert torch.equal(arrived[name], expected), name
    assert plan.bytes_minimum == needed
    gathered = plan_push(made.table, made.held, 0, everything, 1 << 30, torch.float32).bytes_minimum
    assert allgather_bytes(made.table, source_cells(made.held), world, torch.float32) == gathered
    assert plan.bytes_moved <= 1.1 * plan.bytes_minimum


def test_sends_and_receives_agree_and_replicas_share_the_sending():
    table = table_for(hf_config("llama", hidden=64, layers=6))
    made = lay_out(table, tp=1, pp=2, dp=4)
    plans = [
        plan_push(table, made.held, rank, wanted_by_engines(1), 100_000, torch.float32) for rank in range(8)
    ]
    assert len({len(plan.buckets) for plan in plans}) == 1
    for i in range(len(plans[0].buckets)):
        for rank, plan in enumerate(plans):
            for peer, transfers in plan.buckets[i].sends.items():
                assert transfers == plans[peer].buckets[i].receives[rank]
    sent = plans[0].sent_by_rank
    assert sum(sent) == plans[0].bytes_minimum
    for stage in (sent[:4], sent[4:]):
        assert max(stage) <= 1.3 * min(stage), sent


def test_buckets_stay_under_their_size_or_hold_one_module():
    table = table_for(hf_config("qwen3", hidden=64, layers=4))
    made = lay_out(table, tp=2, pp=2, dp=1)
    for size in (40_000, 120_000, 10_000_000):
        plan = plan_push(table, made.held, 0, wanted_by_engines(1), size, torch.float32)
        largest = plan_push(table, made.held, 0, wanted_by_engines(1), 1, torch.float32).bucket_peak
        assert plan.bucket_peak <= max(size, largest)
        assert plan.bucket_peak <= plan.extra_peak <= 2 * plan.bucket_peak  # 128 rows are not padded
    assert len(plan.buckets) == 1


def test_a_module_larger_than_a_bucket_raises_the_bound_of_a_push():
    """The embedding goes whole to each engine at TP 1: the bound is its size and a bucket beside it."""
    size, vocabulary = 60_000, 1024
    table = table_for(hf_config("llama", hidden=64, layers=4, vocab_size=vocabulary))
    made = lay_out(table, tp=2, pp=2, dp=1)
    plan = plan_push(table, made.held, 0, wanted_by_engines(1), size, torch.float32)
    embedding = 4 * 64 * vocabulary
    assert embedding < plan.bucket_peak <= plan.extra_peak
    assert 2 * size < plan.extra_peak <= 3 * embedding + size  # sent, received and assembled at most


def test_what_vllm_keeps_of_a_padded_vocabulary_counts():
    """131 rows are padded to 192: embedding and head stay with its loader until the push ends."""
    peaks = []
    for vocabulary in (128, 131):
        table = table_for(hf_config("llama", hidden=64, layers=4, vocab_size=vocabulary))
        made = lay_out(table, tp=2, pp=2, dp=1)
        peaks.append(plan_push(table, made.held, 0, wanted_by_engines(1), 200_000, torch.float32).extra_peak)
    assert peaks[1] - peaks[0] >= 2 * 4 * 64 * 131


def test_writers_take_every_tensor_once_and_evenly():
    table = table_for(hf_config("llama", hidden=64, layers=8))
    made = lay_out(table, tp=2, pp=2, dp=1)
    wanted = wanted_by_writers(table, made.held)
    shares = [[t for t in table.tensors.values() if wanted(t, rank)] for rank in range(4)]
    assert sorted(t.name for share in shares for t in share) == sorted(table.tensors)
    sizes = [sum(t.numel for t in share) for share in shares]
    for stage in (sizes[:2], sizes[2:]):  # only ranks that hold a tensor's part write it
        assert max(stage) <= 1.5 * min(stage), sizes


def test_all_gather_moves_what_the_others_hold():
    table = table_for(hf_config("llama", hidden=64, layers=2))
    made = lay_out(table, tp=1, pp=1, dp=4)
    assert plan_push(table, made.held, 0, everything, 1 << 30, torch.float32).bytes_moved == 0


# ---- checksums -------------------------------------------------------------------------------------


def slow_checksum(tensor: Tensor) -> int:
    """The definition in Python integers."""
    golden, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1
    bits = tensor.contiguous().flatten().view(torch.int32 if tensor.element_size() == 4 else torch.int16)
    total = 0
    for index, value in enumerate(bits.tolist()):
        mixed = index * golden & mask
        signed = mixed - (1 << 64) if mixed >> 63 else mixed
        total += (value + 0x5BD1E995) * ((signed ^ (signed >> 29)) | 1)
    return total & mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("shape", "dim"), [((6, 5), 0), ((6, 5), 1), ((7,), 0), ((8, 1, 3), 0)])
def test_checksums_of_parts_add_up(dtype, shape, dim):
    torch.manual_seed(1)
    value = torch.randn(shape).to(dtype)
    spec = HFTensor("t", shape, dim)
    parts = []
    for start, stop in ((0, 2), (2, 3), (3, shape[dim])):
        parts.append(checksum(value.narrow(dim, start, stop - start), spec, Run(start, stop - start)))
    assert add(parts) == checksum(value, spec, spec.whole) == slow_checksum(value)


def test_checksum_sees_order():
    value = torch.randn(8, 8)
    spec = HFTensor("t", (8, 8))
    sums = {
        checksum(v.contiguous(), spec, spec.whole)
        for v in (value, value.t(), value.roll(1, 0), value.flip(1))
    }
    assert len(sums) == 4


# ---- what arrives ----------------------------------------------------------------------------------


def test_shard_tensor_answers_what_loaders_ask():
    whole = torch.randn(12, 5)
    part = torch.cat([whole[2:4], whole[6:9]])
    lazy = ShardTensor.of_runs((12, 5), part, 0, [Run(2, 2), Run(6, 3)])
    assert lazy.shape == (12, 5)
    assert torch.equal(lazy.narrow(0, 6, 3), whole[6:9])
    assert torch.equal(lazy[7:8], whole[7:8])
    assert torch.equal(lazy.narrow(0, 1, 7).narrow(0, 1, 2), whole[2:4]), "a block, then a share of it"
    columns = ShardTensor.of_runs((5, 12), part.t().contiguous(), 1, [Run(2, 2), Run(6, 3)])
    assert torch.equal(columns.narrow(1, 6, 2), whole[6:8].t())
    nothing = ShardTensor.of_runs((12, 5), whole[:0], 0, [Run(12, 0)])
    assert nothing.narrow(0, 12, 0).shape == (0, 5), "a rank that holds padding only"
    assert type(ShardTensor.of_runs((5, 5), part, 0, [Run(0, 5)])) is torch.Tensor
    with pytest.raises(RuntimeError, match="not the one planned for"):
        torch.empty(3, 5).copy_(lazy.narrow(0, 3, 3))
    with pytest.raises(RuntimeError, match="not the one planned for"):
        lazy + 1
