"""Shared by the workers of this room: build a policy at a layout, and a sink that keeps what arrives."""

import ctypes
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from igrpo_mcore import device
from igrpo_mcore.config.schema import DType, ModelConfig, ParallelConfig
from igrpo_mcore.families import architecture_of
from igrpo_mcore.policy.model import PolicyModel, build_model
from igrpo_mcore.policy.parallel import start_process_groups
from igrpo_mcore.rollout.engine import RolloutEngine, Sampling, generate


def lay_out_ranks(parallel: ParallelConfig) -> None:
    """Start the process groups of a layout; those of the one before end (gloo keeps threads for each)."""
    if dist.is_initialized():
        dist.barrier()
        parallel_state.destroy_model_parallel()
        for group in list(dist.distributed_c10d._world.pg_map):
            if group is not dist.group.WORLD:
                dist.destroy_process_group(group)
    start_process_groups(parallel, seed=0)


def build_policy(folder: Path, parallel: ParallelConfig) -> tuple[list[PolicyModel], Any]:
    """fp32 model chunks at the layout that was started, filled with NaN, and the transformers config."""
    config = AutoConfig.from_pretrained(folder)
    model = ModelConfig(str(folder), DType.float32)
    with device.megatron_on_cpu():
        chunks = build_model(architecture_of(config), parallel, model, 256)
    with torch.no_grad():
        for chunk in chunks:
            for parameter in chunk.parameters():
                parameter.fill_(torch.nan)
    return chunks, config


def read_checkpoint(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder's safetensors files, read by the library alone."""
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as handle:
            tensors.update({name: handle.get_tensor(name) for name in handle.keys()})  # noqa: SIM118
    return tensors


class Collector:
    """A sink that keeps a copy of what this rank's engine would load: whole tensors, or its shards."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        for name, tensor in named_tensors:
            part = getattr(tensor, "part", tensor)
            self.tensors[name] = part.clone()


@torch.no_grad()
def disturb(chunks: Iterable[nn.Module]) -> None:
    """Scale every weight by a random factor; replicas stay alike."""
    generator = torch.Generator()
    for chunk in chunks:
        for name, parameter in chunk.named_parameters():
            generator.manual_seed(len(name) * 1000 + parameter.shape[0])
            parameter.mul_(1 + 0.1 * torch.rand(parameter.shape, generator=generator))


def no_leftovers() -> None:
    """Give freed tensors back to the system at once, so that resident memory is what is held.

    glibc otherwise keeps freed chunks below 32 MiB, and aligned allocations do not fit their like.
    """
    M_MMAP_THRESHOLD = -3  # mallopt(3)
    assert ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1


def main_rank() -> bool:
    return dist.get_rank() == 0


PROMPTS = [list(range(5, 25)), list(range(40, 70)), [9, 8, 7, 6]]


def largest_difference(
    engine: RolloutEngine, folder: Path, weights: dict[str, Tensor] | None = None
) -> float:
    """Greedy completions of the engine against transformers' log-probs of the same tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if weights is not None:
        names = set(model.state_dict())
        renamed = {name.replace("backbone.", "model."): tensor for name, tensor in weights.items()}
        assert set(renamed) <= names, set(renamed) - names
        model.load_state_dict(renamed, strict=False)
    completions = generate(engine, PROMPTS, Sampling(1, 0.0, 16, ()), [0] * len(PROMPTS))
    worst = 0.0
    for prompt, (completion,) in zip(PROMPTS, completions, strict=True):
        ids = torch.tensor([prompt + list(completion.token_ids)])
        with torch.no_grad():
            logprobs = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        assert logprobs.argmax(-1).tolist() == list(completion.token_ids), "greedy tokens differ"
        reference = logprobs.gather(-1, ids[0, len(prompt) :, None])[:, 0]
        worst = max(worst, (reference - torch.tensor(completion.logprobs)).abs().max().item())
    return worst
