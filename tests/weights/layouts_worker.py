"""Every family through every layout, in, across to engines and out again, bit by bit.

Argument: a scratch folder. Four ranks run all layouts that fit, eight ranks TP4 PP2. Rank 0 prints
a line a case and one JSON line with what was measured.
"""

import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.resharding import build_plan_from_rosters, index_metadata_rosters
from megatron.core.resharding.planner import _extract_module_metadata
from safetensors.torch import save_file
from torch import Tensor

from igrpo_mcore.config.schema import ParallelConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.policy import model
from igrpo_mcore.weights import push_plan
from igrpo_mcore.weights.hf_export import export_hf
from igrpo_mcore.weights.hf_import import load_hf_weights
from igrpo_mcore.weights.push import Pusher
from igrpo_mcore.weights.verify import verify_weights
from tests.support.checkpoints import FAMILIES, make_checkpoint
from tests.weights.support import Collector, build_policy, lay_out_ranks, main_rank, read_checkpoint

SHAPES: dict[str, tuple[str, dict]] = {
    **{family: (family, {}) for family in FAMILIES},
    "qwen2": ("qwen2", {"vocab_size": 131}),  # padded by Megatron and, otherwise, by vLLM
    "nemotron_h": ("nemotron_h", {"n_groups": 4, "vocab_size": 131}),
    "tied": ("qwen2", {"tie_word_embeddings": True}),
}


def same(expected: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """Names that are missing, surplus or differ in any bit."""
    return [
        name
        for name in sorted(expected.keys() | found.keys())
        if name not in expected or name not in found or not torch.equal(expected[name], found[name])
    ]


def check_push(chunks, config, expected: dict[str, Tensor], rollout_tp: int, mode: str) -> tuple[int, int]:
    pusher = Pusher(
        chunks, config, rollout_tp=rollout_tp, bucket_bytes=150_000, mode=mode, dtype=torch.float32
    )
    collector = Collector()
    stats = pusher.push(collector)
    wanted = {}
    for name, tensor in expected.items():
        spec = pusher.table.tensors[name]
        whole = mode == "allgather"
        runs = (spec.whole,) if whole else spec.engine_runs(dist.get_rank() % rollout_tp, rollout_tp)
        wanted[name] = torch.cat([tensor.narrow(spec.dim, r.start, r.length) for r in runs], spec.dim)
    assert not (bad := same(wanted, collector.tensors)), bad
    return stats.bytes_moved, stats.bytes_planned_minimum


def round_trip(chunks, config, folder: Path, out: Path, rollout_tps: tuple[int, ...]) -> dict:
    load_hf_weights(chunks, folder, config)
    assert not any(p.isnan().any() for c in chunks for p in c.parameters()), "not every value was read"
    expected = read_checkpoint(folder)
    moved = {tp: check_push(chunks, config, expected, tp, "p2p") for tp in rollout_tps}
    gathered = check_push(chunks, config, expected, 1, "allgather")[0]
    pusher = Pusher(chunks, config, rollout_tp=rollout_tps[-1], dtype=torch.float32)
    report = verify_weights(pusher, checkpoint=folder)
    assert report.ok, report.table()
    export_hf(chunks, config, folder, out, torch.float32, max_file_bytes=200_000)
    assert not (bad := same(expected, read_checkpoint(out))), bad
    return {"p2p": moved, "allgather": gathered}


def megatron_planner_bytes(chunk, rollout_tp: int) -> int:
    """Bytes that Megatron-Core's own planner moves to the same engines, from metadata alone."""
    rank, world = dist.get_rank(), dist.get_world_size()
    chunk.pg_collection = ProcessGroupCollection.use_mpu_process_groups()
    mine = _extract_module_metadata(chunk, rank, None, 0, {})
    rosters: list = [None] * world
    dist.all_gather_object(rosters, mine)
    pairs = []
    for dest in range(world):
        first = dest - dest % rollout_tp
        engine = list(range(first, first + rollout_tp))
        wanted = {}
        for meta in (m for roster in rosters for m in roster):
            if meta.resolved_name in wanted:
                continue
            shape, scale = list(meta.shape), 1.0
            if meta.is_tp:
                scale = len(meta.tensor_parallel_group_ranks) / rollout_tp
                shape[meta.partition_dim] = int(shape[meta.partition_dim] * scale)
            sizes = [int(s * scale) for s in meta.partition_sizes] if meta.partition_sizes else None
            wanted[meta.resolved_name] = replace(
                meta,
                name=meta.resolved_name,
                shape=tuple(shape),
                partition_sizes=sizes,
                owner_rank=dest,
                tensor_parallel_group_ranks=engine,
                data_parallel_group_ranks=[dest],
                pipeline_parallel_group_ranks=[dest],
            )
        pairs.append((rosters[dest], list(wanted.values())))
    plan = build_plan_from_rosters(*index_metadata_rosters(pairs), rank)
    shapes = {m.resolved_name: m.shape for m in pairs[rank][1]}
    moved = 0
    for operation in plan.recv_ops:
        if operation.peer_rank != rank:
            extents = zip(operation.my_slice, shapes[operation.param_name], strict=True)
            moved += 4 * math.prod(len(range(*s.indices(size))) for s, size in extents)
    everyone = torch.tensor(moved)
    dist.all_reduce(everyone)
    return int(everyone)


def refusals(chunks, config, folder: Path, scratch: Path) -> list[str]:
    """What every rank says of a checkpoint with a missing, a misshapen and a surplus tensor."""
    said = []
    tensors = read_checkpoint(folder)
    gate = "model.layers.1.mlp.gate_proj.weight"
    damaged = {
        "missing": {n: t for n, t in tensors.items() if n != gate},
        "misshapen": tensors | {gate: tensors[gate].t().contiguous()},
        "surplus": tensors | {"model.layers.9.mlp.gate_proj.weight": tensors[gate].clone()},
    }
    for kind, contents in damaged.items():
        broken = scratch / f"broken_{kind}"
        if main_rank():
            broken.mkdir()
            save_file(contents, broken / "model.safetensors")
        dist.barrier()
        try:
            load_hf_weights(chunks, broken, config)
            said.append("")
        except UserError as error:
            said.append(str(error))
    everyone: list = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, said)
    assert all(other == said for other in everyone), everyone
    return said


class Cases:
    """Runs the cases of one launch and keeps what they measured."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.results = scratch, {}

    def report(self, case: str, result: dict) -> None:
        self.results[case] = result
        if main_rank():
            print(case, result, flush=True)

    def checkpoint(self, name: str) -> Path:
        """Made once by rank 0."""
        folder = self.scratch / name
        if main_rank() and not folder.exists():
            family, overrides = SHAPES[name]
            make_checkpoint(folder, family, hidden=64, **overrides)
        dist.barrier()
        return folder

    def dense(self, name: str, layout: ParallelConfig, rollout_tps=(1, 2, 4), pattern: str = "") -> None:
        folder = self.checkpoint(name)
        given = {"side_effect": lambda *_: pattern} if pattern else {"wraps": model.pipeline_pattern}
        with patch.object(model, "pipeline_pattern", **given):
            chunks, config = build_policy(folder, layout)
        case = f"{name} TP{layout.tp} PP{layout.pp} VPP{layout.vpp} {pattern}".strip()
        out = self.scratch / f"out{len(self.results)}"
        self.report(case, round_trip(chunks, config, folder, out, rollout_tps))


def main() -> None:
    push_plan.ALONE_BYTES = 8192  # so that small models have messages of both kinds
    cases = Cases(Path(sys.argv[1]))
    if int(os.environ["WORLD_SIZE"]) == 8:
        layout = ParallelConfig(tp=4, pp=2)
        lay_out_ranks(layout)
        for name in FAMILIES:
            cases.dense(name, layout, (2, 4))
    else:
        for tp, pp in ((1, 1), (1, 2), (2, 1), (4, 1), (2, 2)):
            layout = ParallelConfig(tp=tp, pp=pp)
            lay_out_ranks(layout)
            for name in FAMILIES:
                cases.dense(name, layout)
            if tp == 2:
                cases.dense("tied", layout, (2,))
        cases.dense("llama", layout, (2,), "*-|*-*-*-")
        cases.dense("nemotron_h", layout, (2,), "M|-*-")
        chunks, config = build_policy(cases.scratch / "llama", layout)
        load_hf_weights(chunks, cases.scratch / "llama", config)
        for rollout_tp in (1, 2):
            moved = megatron_planner_bytes(chunks[0], rollout_tp)
            cases.report(f"megatron planner {rollout_tp}", {"moved": moved})
        said = refusals(chunks, config, cases.scratch / "llama", cases.scratch)
        cases.report("refusals", {"said": said})
        layout = ParallelConfig(tp=2, pp=2, vpp=2)
        lay_out_ranks(layout)
        cases.dense("llama", layout, (2,))
    if main_rank():
        print("RESULT " + json.dumps(cases.results), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
