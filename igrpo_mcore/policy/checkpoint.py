"""Checkpoints by Megatron's dist_checkpointing: written from one layout, read into any other.

A checkpoint holds the parameters, the distributed optimizer, the RNG states and where the run
stands. ``checkpoint_folder`` publishes it whole or not at all.
"""

import queue
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core import parallel_state as mpu
from megatron.core.dist_checkpointing.mapping import ShardedObject
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelSaveStrategyWrapper
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from megatron.core.tensor_parallel import get_cuda_rng_tracker

from igrpo_mcore import device
from igrpo_mcore.collective import raise_everywhere
from igrpo_mcore.errors import UserError, one_line
from igrpo_mcore.policy.model import PolicyModel
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder, Position


class Sharded(Protocol):
    """What a checkpoint keeps, the policy."""

    def sharded_state(self, *, loading: bool) -> dict[str, Any]: ...

    def load_sharded_state(self, state: dict[str, Any], updates: int) -> None: ...


GATHER_SLACK = 1.25
"""Of the memory that a gather takes; NCCL's and the padding of a buffer are beside it."""


def save_checkpoint(folder: CheckpointFolder, policy: Sharded, position: Position) -> Path:
    """Write and publish the checkpoint of ``position.step``; older ones than are kept go. Collective.

    Raises:
        UserError: it cannot be written (a full disk, say); earlier checkpoints are left as they are.
    """
    main = dist.get_rank() == 0
    _write_in_this_process()
    problem, partial = None, folder.partial(position.step)
    if main:
        try:
            folder.begin(position.step)
        except OSError as error:
            problem = str(folder.cannot_write(position.step, error))
    raise_everywhere(problem)
    state = {**policy.sharded_state(loading=False), "rng": _rng_state()}
    try:
        with device.megatron_on_cpu():
            dist_checkpointing.save(state, str(partial), _shared_out())
        if main:
            folder.publish(position, _layout())
    except Exception as error:
        raise folder.cannot_write(position.step, error) from error
    dist.barrier()
    return folder.path(position.step)


def load_latest(folder: CheckpointFolder, policy: Sharded) -> Position | None:
    """Load the newest checkpoint as rank 0 sees the folder; None where there is none. Collective."""
    latest = [folder.latest()]
    dist.broadcast_object_list(latest, src=0)
    return load_checkpoint(folder, policy, latest[0]) if latest[0] else None


def load_checkpoint(folder: CheckpointFolder, policy: Sharded, checkpoint: Path) -> Position:
    """Fill ``policy`` from a published checkpoint, whatever layout wrote it. Collective.

    Raises:
        UserError: on every rank, for a checkpoint that is damaged or of another model.
    """
    position, layout = folder.read(checkpoint)
    state = policy.sharded_state(loading=True)
    if layout == _layout():
        state["rng"] = _rng_state()
    loaded = _load(state, checkpoint)
    policy.load_sharded_state(loaded, position.updates)
    if "rng" in loaded:
        _restore_rng(loaded["rng"])
    return position


def load_parameters(chunks: list[PolicyModel], checkpoint: Path) -> None:
    """Fill bare model chunks from a checkpoint, without its optimizer state. Collective."""
    load_model_state(chunks, _load({"model": sharded_model_state(chunks)}, checkpoint)["model"])


def sharded_model_state(chunks: list[PolicyModel]) -> dict[str, Any]:
    """Megatron's sharded state dict of every chunk; the names are global, so chunks can be cut anew."""
    with device.megatron_on_cpu():
        return {
            str(i): chunk.sharded_state_dict(metadata=sharding_metadata()) for i, chunk in enumerate(chunks)
        }


def load_model_state(chunks: list[PolicyModel], state: dict[str, Any]) -> None:
    with device.megatron_on_cpu():
        for i, chunk in enumerate(chunks):
            chunk.load_state_dict(state[str(i)])


def sharding_metadata(room: bool = True) -> dict[str, Any]:
    """How Megatron lays out a checkpoint: resumable at another TP, PP and DP size.

    With ``room`` (``room_to_gather``) every data-parallel replica gets the whole optimizer state by NCCL and
    writes its part of it; without, one replica gets it over gloo and writes it alone. Same format.
    """
    return {
        "dp_cp_group": mpu.get_data_parallel_group(with_context_parallel=True),
        "distrib_optim_sharding_type": "fully_reshardable",
        "distrib_optim_fully_reshardable_mem_efficient": not room,
    }


def room_to_gather(chunks: list[PolicyModel]) -> bool:
    """Whether every rank's GPU has room for one fp32 state of all of its parameters, Megatron's buffer
    for each kind of state in turn. The same answer everywhere. Collective."""
    needed = 4 * sum(parameter.numel() for chunk in chunks for parameter in chunk.parameters())
    free = device.free_bytes()
    lacks = torch.tensor(int(free is not None and free < GATHER_SLACK * needed))
    dist.all_reduce(lacks, op=dist.ReduceOp.MAX)
    return not lacks


def _shared_out() -> FullyParallelSaveStrategyWrapper:
    """Replicas of a tensor lie in one data-parallel group, whose ranks each write some of them."""
    group = mpu.get_data_parallel_group(with_context_parallel=True)
    return FullyParallelSaveStrategyWrapper(TorchDistSaveShardedStrategy(), group)


def _load(state: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    try:
        with device.megatron_on_cpu():
            return dist_checkpointing.load(state, str(checkpoint))
    except Exception as error:  # its readers raise their own, torch's and the file system's
        raise UserError(
            f"{checkpoint} cannot be read into this model ({one_line(error)}): it is damaged or "
            "of another model; remove it to go on from the one before, or set another run.name"
        ) from error


def _layout() -> dict[str, int]:
    return {
        "tp": mpu.get_tensor_model_parallel_world_size(),
        "pp": mpu.get_pipeline_model_parallel_world_size(),
        "dp": mpu.get_data_parallel_world_size(),
    }


def _rng_state() -> ShardedObject:
    """One object a rank; read back only by the layout that wrote it."""
    rank = dist.get_rank()
    states = {"torch": torch.get_rng_state(), "tracker": get_cuda_rng_tracker().get_states()}
    if device.has_cuda():
        states["cuda"] = torch.cuda.get_rng_state()
    return ShardedObject("rng", states, (dist.get_world_size(),), (rank,), replica_id=0)


def _restore_rng(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    get_cuda_rng_tracker().set_states(states["tracker"])
    if device.has_cuda():
        torch.cuda.set_rng_state(states["cuda"])


def _write_in_this_process() -> None:
    # Megatron passes results through a manager process that it spawns, which takes half a minute and
    # dies by the job's SIGTERM; a synchronous save writes in threads, for which a plain queue serves.
    filesystem_async._results_queue = queue.Queue()
