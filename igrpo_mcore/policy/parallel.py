"""The process groups of a run: torch.distributed's world and Megatron's parallel state over it."""

import os
from datetime import timedelta

import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel

from igrpo_mcore import device
from igrpo_mcore.config.schema import ParallelConfig

LIMIT_MINUTES = 30.0
"""Least time that one collective may wait for its last rank."""


def start_process_groups(parallel: ParallelConfig, seed: int, hang_minutes: float | None = None) -> None:
    """Join the world that the launcher's environment describes and lay out Megatron's groups.

    A collective ends the job after ``LIMIT_MINUTES``, or three times ``hang_minutes`` where that is more:
    ranks wait in one for as long as the slowest engine samples, so it is the watchdog that tells a hang.

    RNG seeds follow Megatron's rule, seed + 100 x pipeline rank, so that stages differ and
    data-parallel replicas do not.
    """
    device.bind_local_rank()
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.has_cuda() else "gloo"
        minutes = max(LIMIT_MINUTES, 3 * (hang_minutes or 0.0))
        dist.init_process_group(backend, timeout=timedelta(minutes=minutes))
    with device.megatron_on_cpu():
        parallel_state.initialize_model_parallel(
            parallel.tp,
            parallel.pp,
            virtual_pipeline_model_parallel_size=parallel.vpp if parallel.vpp > 1 else None,
            context_parallel_size=parallel.cp,
            expert_model_parallel_size=parallel.ep,
        )
        tensor_parallel.model_parallel_cuda_manual_seed(
            seed + 100 * parallel_state.get_pipeline_model_parallel_rank()
        )


def world_size() -> int:
    """Ranks of this job, known before the process group starts."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_rank() -> bool:
    return int(os.environ.get("RANK", "0")) == 0
