"""Shared by the workers of this room: build a policy at a layout, and a sink that keeps what arrives."""

from collections.abc import Iterable
from pathlib import Path

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


def build_policy(
    folder: Path, tp: int, pp: int, vpp: int = 1, dtype: DType = DType.float32
) -> tuple[list[PolicyModel], object]:
    """Model chunks at a layout (parameters filled with NaN) and the transformers config."""
    if parallel_state.model_parallel_is_initialized():
        parallel_state.destroy_model_parallel()
    parallel = ParallelConfig(tp=tp, pp=pp, vpp=vpp)
    start_process_groups(parallel, seed=0)
    config = AutoConfig.from_pretrained(folder)
    with device.megatron_on_cpu():
        chunks = build_model(architecture_of(config), parallel, ModelConfig(str(folder), dtype), 256)
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
