"""How vLLM (0.32) is started inside the trainer's ranks: environment, arguments, what it must not change."""

import logging
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch._dynamo.config
import torch.distributed as dist
from transformers import AutoConfig

from igrpo_mcore.config.schema import DType, RolloutConfig
from igrpo_mcore.device import has_cuda
from igrpo_mcore.errors import UserError
from igrpo_mcore.families import architecture_of

CPU_BLOCK_SIZE = 32
"""Tokens a KV-cache block on the CPU, where vLLM's attention kernel wants a multiple of 32."""


def set_environment() -> None:
    """What vLLM reads from the environment; must be set before it is imported."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if "VLLM_LOGGING_LEVEL" not in os.environ:
        # every rank would repeat the same notes about Triton, CUDA_HOME and torch's old names
        os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
        for name in ("vllm", "torch.utils.cpp_extension"):
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", "`torch.distributed.reduce_op` is deprecated", FutureWarning)
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("RANK", str(dist.get_rank()))
    os.environ.setdefault("LOCAL_RANK", "0")
    if not has_cuda():
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        # vLLM's sampler would compile one small function: seconds in every rank, more where g++ runs first
        torch._dynamo.config.disable = True


def register_architecture(model_path: str) -> None:
    """Import the model class here; otherwise vLLM starts a process that imports all of vLLM to look at it."""
    from vllm import ModelRegistry

    for architecture in AutoConfig.from_pretrained(model_path).architectures or ():
        entry = ModelRegistry.models.get(architecture)
        if entry is None:
            raise UserError(f"vLLM does not know the architecture {architecture} of {model_path}.")
        ModelRegistry.register_model(architecture, entry.load_model_cls())


@contextmanager
def trainer_state_kept() -> Iterator[None]:
    """vLLM reseeds every RNG (its import draws as well) and replaces ``torch.set_num_threads``: undo that."""
    torch_rng, numpy_rng, python_rng = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda_rng = torch.cuda.get_rng_state() if has_cuda() else None
    set_num_threads, num_threads = torch.set_num_threads, torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads = set_num_threads
        if torch.get_num_threads() != num_threads:
            torch.set_num_threads(num_threads)
        torch.set_rng_state(torch_rng)
        np.random.set_state(numpy_rng)
        random.setstate(python_rng)
        if cuda_rng is not None:
            torch.cuda.set_rng_state(cuda_rng)


def start(model_path: str, rollout: RolloutConfig, dtype: DType, seed: int, load_format: str):
    """A ``vllm.LLM`` over this rank's tensor-parallel group, called by every rank of the world together.

    Raises:
        UserError: vLLM refuses the settings.
    """
    from vllm import LLM

    arguments = {
        "model": model_path,
        "load_format": load_format,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # not the checkpoint's: Sampling says everything
        "dtype": str(dtype),
        "tensor_parallel_size": rollout.tp,
        "distributed_executor_backend": "external_launcher",
        "seed": seed,
        "max_model_len": rollout.longest_sequence,
        "max_num_seqs": rollout.max_concurrent_sequences,
        "logprobs_mode": "processed_logprobs",  # at the sampling temperature
        "disable_log_stats": True,
    }
    if has_cuda():
        arguments |= {
            "enable_sleep_mode": True,
            "gpu_memory_utilization": rollout.memory_fraction,
            "enforce_eager": rollout.enforce_eager,
        }
    else:
        arguments |= {
            "enforce_eager": True,
            "block_size": CPU_BLOCK_SIZE,
            "kv_cache_memory_bytes": rollout.kv_cache_bytes,
        }
        if architecture_of(AutoConfig.from_pretrained(model_path)).mamba:
            arguments["enable_prefix_caching"] = False  # Mamba states are not cached on the CPU
    try:
        return LLM(**arguments)
    except ValueError as error:  # what vLLM checks are settings: lengths, memory, head counts
        raise UserError(f"vLLM does not start with these settings: {error}") from error


@contextmanager
def waiting_asleep() -> Iterator[None]:
    """Engines made inside reduce over gloo on the CPU, where vLLM would take shared memory of its own.

    Its ranks wait for each other by spinning: with fewer cores than ranks a stage that needs 0.3 s
    took up to 19 s. It also takes the same name in every job (errno 17 beside another, or after a crash).
    """
    if has_cuda():
        yield
        return
    from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator

    upstream = CpuCommunicator._all_group_ranks_share_shm_group_name
    CpuCommunicator._all_group_ranks_share_shm_group_name = lambda self: False
    try:
        yield
    finally:
        CpuCommunicator._all_group_ranks_share_shm_group_name = upstream
