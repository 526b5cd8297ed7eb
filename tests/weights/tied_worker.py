"""In every rank: tied and untied heads of every dense family, pushed twice from every train layout.

Arguments: scratch folder, rollout tp. The engines are made once and pushed to from each layout in turn;
last, the refresh of the tied head is left out. Rank 0 prints one JSON line: case -> what each rank found.
"""

import json
import os
import sys
import zlib
from pathlib import Path
from types import MethodType

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from transformers import AutoTokenizer

from igrpo_mcore.config.schema import DType, ParallelConfig, RolloutConfig
from igrpo_mcore.policy.parallel import start_process_groups
from igrpo_mcore.rollout.vllm_engine import VLLMEngine
from igrpo_mcore.weights.hf_import import load_hf_weights
from igrpo_mcore.weights.push import Pusher
from igrpo_mcore.weights.table import OUTPUT
from igrpo_mcore.weights.verify import verify_weights
from tests.support.checkpoints import make_checkpoint
from tests.weights.support import Collector, build_policy, largest_difference, main_rank

FAMILIES = ("llama", "qwen2", "qwen3")
LAYOUTS = ((1, 1), (2, 1), (1, 2), (2, 2))


@torch.no_grad()
def disturb(pusher: Pusher) -> None:
    """Scale every weight by a random factor; replicas stay alike, and so do the two ends of a tied head."""
    generator = torch.Generator()
    for shard in pusher.shards.values():
        generator.manual_seed(zlib.crc32(shard.rule.tensors[0].name.encode()))
        shard.tensor.mul_(1 + 0.1 * torch.rand(shard.tensor.shape, generator=generator))


def verified(pusher: Pusher, engine: VLLMEngine | None = None) -> list[str]:
    report = verify_weights(pusher, engine_model=engine.model if engine else None)
    assert engine is None or all(row.read_back == row.tensors for row in report.rows), report.table()
    return sorted({mismatch.tensor for mismatch in report.mismatches})


def main() -> None:
    root, rollout_tp = Path(sys.argv[1]), int(sys.argv[2])
    start_process_groups(ParallelConfig(), seed=0)
    folders = {
        f"{family} {'tied' if tied else 'untied'}": (family, tied)
        for family in FAMILIES
        for tied in (True, False)
    }
    if main_rank():
        for name, (family, tied) in folders.items():
            make_checkpoint(root / name, family, layers=2, tie_word_embeddings=tied)
    dist.barrier()
    rollout = RolloutConfig(
        tp=rollout_tp, max_prompt_tokens=64, max_completion_tokens=32, kv_cache_bytes=8 << 20
    )
    engines = {
        name: VLLMEngine(str(root / name), rollout, DType.float32, AutoTokenizer.from_pretrained(root / name))
        for name in folders
    }
    found: dict = {}
    for tp, pp in LAYOUTS:
        parallel_state.destroy_model_parallel()
        start_process_groups(parallel := ParallelConfig(tp=tp, pp=pp), seed=0)
        for name, engine in engines.items():
            folder = root / name
            chunks, config = build_policy(folder, parallel)
            load_hf_weights(chunks, folder, config)
            pusher = Pusher(chunks, config, rollout_tp=rollout_tp, dtype=torch.float32)
            pusher.push(engine)
            before = largest_difference(engine, folder)
            disturb(pusher)
            whole = Collector()
            Pusher(chunks, config, rollout_tp=1, mode="allgather", dtype=torch.float32).push(whole)
            if folders[name][1]:
                whole.tensors["lm_head.weight"] = whole.tensors["model.embed_tokens.weight"]
            pusher.push(engine)
            after = largest_difference(engine, folder, whole.tensors)
            found[f"{name} TP{tp} PP{pp}"] = [before, after, verified(pusher, engine)]
            if (tp, pp) == LAYOUTS[-1]:
                disturb(pusher)
                engine._refresh_tied_head = MethodType(lambda self: None, engine)  # type: ignore[method-assign]
                pusher.push(engine)
                found[f"{name} without the refresh"] = verified(pusher, engine)
                # the last stage of a tied policy drifts from the embedding of the first
                if OUTPUT in pusher.shards:
                    pusher.shards[OUTPUT].tensor.add_(1)
                found[f"{name} with another head"] = verified(pusher)
    results: list = [None] * dist.get_world_size()
    dist.all_gather_object(results, found)
    if main_rank():
        cases = {name: [rank[name] for rank in results] for name in found}
        print("RESULT " + json.dumps(cases), flush=True)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # several engines cannot each take the process groups down


if __name__ == "__main__":
    main()
