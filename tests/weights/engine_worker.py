"""In every rank: load a checkpoint, push it to vLLM, compare with transformers; change the policy, again.

Arguments: checkpoint folder, tp, pp, rollout tp, number of further pushes whose memory is watched,
families whose export is read by transformers and by an engine of their own. Rank 0 prints one JSON line.
"""

import gc
import json
import os
import sys
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from transformers import AutoTokenizer

from igrpo_mcore.config.schema import DType, ParallelConfig, RolloutConfig
from igrpo_mcore.rollout.vllm_engine import VLLMEngine
from igrpo_mcore.weights.hf_import import load_hf_weights
from igrpo_mcore.weights.push import Pusher
from tests.weights.exports import export_differences
from tests.weights.support import (
    Collector,
    build_policy,
    disturb,
    largest_difference,
    lay_out_ranks,
    main_rank,
    no_leftovers,
)


def main() -> None:
    no_leftovers()
    folder = Path(sys.argv[1])
    tp, pp, rollout_tp, pushes = map(int, sys.argv[2:6])
    parallel = ParallelConfig(tp=tp, pp=pp)
    lay_out_ranks(parallel)
    chunks, config = build_policy(folder, parallel)
    load_hf_weights(chunks, folder, config)
    rollout = RolloutConfig(tp=rollout_tp, max_prompt_tokens=64, max_completion_tokens=32)
    engine = VLLMEngine(str(folder), rollout, DType.float32, AutoTokenizer.from_pretrained(folder))
    pusher = Pusher(chunks, config, rollout_tp=rollout_tp, bucket_bytes=300_000, dtype=torch.float32)
    first = pusher.push(engine)
    before = largest_difference(engine, folder)

    disturb(chunks)
    whole = Collector()
    Pusher(chunks, config, rollout_tp=1, dtype=torch.float32).push(whole)
    pusher.push(engine)
    after = largest_difference(engine, folder, whole.tensors)
    stale = largest_stale = 0.0
    if pushes:
        process = psutil.Process()
        for i in range(pushes):
            pusher.push(engine)
            if i == pushes // 5:
                gc.collect()
                stale = process.memory_info().rss
        gc.collect()
        largest_stale = process.memory_info().rss - stale
    result = dict(before=before, after=after, growth_bytes=largest_stale, moved=first.bytes_moved)
    results: list = [None] * dist.get_world_size()
    dist.all_gather_object(results, result)
    exports = {
        family: export_differences(family, folder.parent, parallel, rollout_tp) for family in sys.argv[6:]
    }
    if main_rank():
        print("RESULT " + json.dumps({"ranks": results, "exports": exports}), flush=True)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # several engines cannot each take the process groups down


if __name__ == "__main__":
    main()
