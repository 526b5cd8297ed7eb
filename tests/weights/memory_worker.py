"""Peak memory of a push: a 300 M-parameter random model at TP 2 into two vLLM engines at TP 1.

Argument: a scratch folder. Rank 0 prints one JSON line: bytes by bucket size and rank.
"""

import ctypes
import gc
import json
import re
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from igrpo_mcore.config.schema import DType, ParallelConfig, RolloutConfig
from igrpo_mcore.rollout.vllm_engine import VLLMEngine
from igrpo_mcore.weights.push import Pusher
from tests.support.checkpoints import char_tokenizer, hf_config
from tests.weights.support import build_policy, lay_out_ranks, main_rank, no_leftovers

BUCKETS = (96 << 20, 16 << 20)
"""The embedding, the head and gate and up of a layer (34 MB each) are larger than the second."""


def memory(field: str) -> int:
    """VmRSS or VmHWM of this process, bytes."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


def forget_peak() -> None:
    """Reset VmHWM to what is resident now (proc(5), clear_refs 5)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    no_leftovers()
    folder = Path(sys.argv[1])
    layout = ParallelConfig(tp=2)
    lay_out_ranks(layout)
    config = hf_config(
        "qwen3", hidden=1024, layers=19, vocab_size=8192, intermediate_size=4096, num_attention_heads=16
    )
    config.head_dim, config.num_key_value_heads = 64, 8
    config.architectures = ["Qwen3ForCausalLM"]
    if main_rank():
        config.save_pretrained(folder)
    dist.barrier()
    chunks, config = build_policy(folder, layout)
    with torch.no_grad():
        for parameter in chunks[0].parameters():
            parameter.normal_(0, 0.02)
    rollout = RolloutConfig(tp=1, max_prompt_tokens=64, max_completion_tokens=32)
    engine = VLLMEngine(str(folder), rollout, DType.float32, char_tokenizer())
    results = []
    for bucket in BUCKETS:
        pusher = Pusher(chunks, config, rollout_tp=1, bucket_bytes=bucket, dtype=torch.float32)
        pusher.push(engine)
        forget_peak()
        before = memory("VmRSS")
        stats = pusher.push(engine)
        mine = dict(
            parameters=sum(t.numel for t in pusher.table.tensors.values()),
            module_bytes=4 * max(sum(pusher.table.tensors[n].numel for n in g) for g in pusher.table.groups),
            bucket_bytes=bucket,
            bound_bytes=pusher.plan.extra_peak,
            accounted_bytes=stats.peak_extra_bytes,
            extra_bytes=memory("VmHWM") - before,
            bytes_moved=stats.bytes_moved,
        )
        ranks: list = [None] * dist.get_world_size()
        dist.all_gather_object(ranks, mine)
        results.append(ranks)
    if main_rank():
        print("RESULT " + json.dumps(results), flush=True)
    engine.close()


if __name__ == "__main__":
    main()
