"""In four ranks: each family, tied and not, from each train layout into engines of TP 1 and TP 2.

Argument: a scratch folder. A case imports a checkpoint, pushes it, "updates" the policy to another
checkpoint and pushes again: transformers reads the other from its own folder, so the comparison does
not pass through anything of ours. Rank 0 prints one JSON line: what each case found, worst over ranks.
"""

import itertools
import json
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm.distributed.parallel_state import destroy_model_parallel

from igrpo_mcore import device
from igrpo_mcore.collective import gather_objects
from igrpo_mcore.config.schema import DType, ParallelConfig, RolloutConfig
from igrpo_mcore.policy.parallel import start_process_groups
from igrpo_mcore.rollout.engine import Sampling
from igrpo_mcore.rollout.tied_head import TiedHead
from igrpo_mcore.rollout.vllm_engine import VLLMEngine
from igrpo_mcore.weights import WeightSync, load_hf_weights, verify_weights
from tests.support.checkpoints import make_checkpoint
from tests.weights.support import build_policy, main_rank

LAYOUTS = ((1, 1), (1, 2), (2, 1), (2, 2))
SHAPES: dict[str, dict] = {
    **{
        f"{family} {'tied' if tied else 'untied'}": {"family": family, "tie_word_embeddings": tied}
        for family in ("llama", "qwen2", "qwen3")
        for tied in (True, False)
    },
    # engine ranks that share a key-value head
    "llama one kv head": {"family": "llama", "tie_word_embeddings": True, "num_key_value_heads": 1},
}
PROMPTS = [list(range(5, 25)), [9, 8, 7, 6]]
ENGINES: list[VLLMEngine] = []
"""Kept until the process ends: an engine that goes takes the default process group with it."""


@cache
def reference(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def difference(engine: VLLMEngine, folder: Path) -> float:
    """Largest of any rank's engine from transformers, on log-probs of its own greedy completions."""
    completions = engine.generate(PROMPTS, Sampling(1, 0.0, 8, ()), [0] * len(PROMPTS))
    worst = 0.0
    for prompt, (completion,) in zip(PROMPTS, completions, strict=True):
        ids = torch.tensor([[*prompt, *completion.token_ids]])
        logprobs = reference(folder)(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        theirs = logprobs.gather(-1, ids[0, len(prompt) :, None])[:, 0]
        worst = max(worst, float((theirs - torch.tensor(completion.logprobs)).abs().max()))
    return max(gather_objects(worst))


def checkpoints(scratch: Path, shape: str) -> tuple[Path, Path]:
    """Two of one config, made once by rank 0; of the second the first is as unlike as of any other."""
    folders = tuple(scratch / f"{shape.replace(' ', '_')}_{seed}" for seed in (0, 1))
    if main_rank() and not folders[0].exists():
        for seed, folder in enumerate(folders):
            make_checkpoint(folder, layers=2, seed=seed, **SHAPES[shape])
    dist.barrier()
    return folders[0], folders[1]


def megatron_state() -> dict:
    """Megatron's parallel state of this rank: the module's private globals."""
    return {name: value for name, value in vars(parallel_state).items() if name.startswith("_")}


class Policies:
    """One policy a shape and train layout; all layouts' groups live, as engines must outlive each."""

    def __init__(self, scratch: Path) -> None:
        unstarted = megatron_state()
        self._states: dict[str, dict] = {}
        self._policies: dict[tuple[str, str], tuple] = {}
        for tp, pp in LAYOUTS:
            vars(parallel_state).update(unstarted)
            parallel, layout = ParallelConfig(tp=tp, pp=pp), f"TP{tp} PP{pp}"
            start_process_groups(parallel, seed=0)
            self._states[layout] = megatron_state()
            for shape, options in SHAPES.items():
                folder = checkpoints(scratch, shape)[0]
                if options.get("num_key_value_heads", 2) % tp == 0:
                    self._policies[shape, layout] = build_policy(folder, parallel)

    def of(self, shape: str) -> Iterator[tuple[str, tuple]]:
        """Each layout's name and policy of ``shape``, with that layout in force."""
        for (other, layout), policy in self._policies.items():
            if other == shape:
                vars(parallel_state).update(self._states[layout])
                yield layout, policy


def check(chunks, config, engine: VLLMEngine, rollout_tp: int, folders: tuple[Path, Path]) -> dict:
    sync = WeightSync(chunks, config, rollout_tp=rollout_tp, bucket_bytes=300_000, dtype=torch.float32)
    found = {}
    for moment, folder in zip(("first push", "after an update"), folders, strict=True):
        load_hf_weights(chunks, folder, config)
        sync.push(engine)
        found[moment] = difference(engine, folder)
    report = verify_weights(sync, checkpoint=folders[1], engine_model=engine.model)
    found["differ"] = sorted({m.tensor for m in report.mismatches})
    found["not read back"] = [row.family for row in report.rows if row.read_back != row.tensors]
    found["head"] = sum(row.tensors for row in report.rows if row.family == "head")
    return found


def stale(chunks, config, engine: VLLMEngine, rollout_tp: int, folder: Path) -> dict:
    """A push whose tied head is not refreshed, as vLLM leaves it, and the next one that is."""
    sync = WeightSync(chunks, config, rollout_tp=rollout_tp, dtype=torch.float32)
    load_hf_weights(chunks, folder, config)
    found = {}
    with patch.object(TiedHead, "refresh", lambda self: None):
        sync.push(engine)
    report = verify_weights(sync, engine_model=engine.model)
    found["differ"] = sorted({m.tensor for m in report.mismatches})
    found["difference"] = difference(engine, folder)
    sync.push(engine)
    report = verify_weights(sync, engine_model=engine.model)
    found["differ after the next"] = sorted({m.tensor for m in report.mismatches})
    return found


def main() -> None:
    scratch = Path(sys.argv[1])
    device.bind_local_rank()
    dist.init_process_group("gloo")
    policies = Policies(scratch)
    results: dict[str, dict] = {}
    for rollout_tp, shape in itertools.product((1, 2), SHAPES):
        if ENGINES and shape == next(iter(SHAPES)):
            destroy_model_parallel()  # vLLM keeps one tensor-parallel size a process
        folders = checkpoints(scratch, shape)
        rollout = RolloutConfig(
            tp=rollout_tp, max_prompt_tokens=64, max_completion_tokens=32, kv_cache_bytes=16 << 20
        )
        tokenizer = AutoTokenizer.from_pretrained(folders[0])
        engine = VLLMEngine(str(folders[0]), rollout, DType.float32, tokenizer)
        ENGINES.append(engine)
        for layout, policy in policies.of(shape):
            case = f"{shape} {layout} -> TP{rollout_tp}"
            results[case] = check(*policy, engine, rollout_tp, folders)
            if layout == "TP1 PP2" and SHAPES[shape]["tie_word_embeddings"]:
                results[f"stale {shape} -> TP{rollout_tp}"] = stale(*policy, engine, rollout_tp, folders[0])
            if main_rank():
                print(case, results[case], flush=True)
    if main_rank():
        print("RESULT " + json.dumps(results), flush=True)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # several engines cannot each take the process groups down


if __name__ == "__main__":
    main()
