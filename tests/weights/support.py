"""Shared by the workers of this room: build a policy at a layout, and a sink that keeps what arrives."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig

from igrpo_mcore import device
from igrpo_mcore.config.schema import DType, ModelConfig, ParallelConfig
from igrpo_mcore.policy.architecture import architecture_of
from igrpo_mcore.policy.model import PolicyModel, build_model
from igrpo_mcore.policy.parallel import start_process_groups


def lay_out_ranks(parallel: ParallelConfig) -> None:
    """Start the process groups of a layout; those of the one before end (gloo keeps threads for each)."""
    if dist.is_initialized():
        dist.barrier()
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()
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


def main_rank() -> bool:
    return dist.get_rank() == 0
