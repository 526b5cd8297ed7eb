"""Checkpoints by Megatron's dist_checkpointing: what is in them, and reading them into any layout.

A checkpoint holds the parameters, the distributed optimizer, the RNG states and where the run stands.
``checkpoint_writer`` writes it, ``checkpoint_folder`` publishes it whole or not at all.
"""

from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core import parallel_state as mpu
from megatron.core.dist_checkpointing.mapping import ShardedObject
from megatron.core.tensor_parallel import get_cuda_rng_tracker

from igrpo_mcore import device
from igrpo_mcore.collective import gather_objects, raise_everywhere
from igrpo_mcore.errors import UserError, one_line
from igrpo_mcore.policy.model import PolicyModel
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder, Position
from igrpo_mcore.run.checksums import first_damage


class Sharded(Protocol):
    """What a checkpoint keeps, the policy."""

    def sharded_state(self, *, loading: bool) -> dict[str, Any]: ...

    def load_sharded_state(self, state: dict[str, Any], updates: int) -> None: ...


GATHER_SLACK = 1.25
"""Of the memory that a gather takes; NCCL's and the padding of a buffer are beside it."""


def load_latest(folder: CheckpointFolder, policy: Sharded) -> Position | None:
    """Load the newest checkpoint whose files are what was written, as rank 0 sees the folder; None where
    there is none at all. A damaged one is passed over, and ``folder.note`` says so. Collective.

    Raises:
        UserError: on every rank, where none is whole.
    """
    found = [list(reversed(folder.all()))]
    dist.broadcast_object_list(found, src=0)
    problem = None
    for checkpoint in found[0]:
        damage = find_damage(folder, checkpoint)
        if damage is None:
            return load_checkpoint(folder, policy, checkpoint)
        problem = problem or f"{checkpoint.name}: {damage}"
        if checkpoint is not found[0][-1] and dist.get_rank() == 0:
            folder.pass_over(checkpoint, damage)
    raise_everywhere(
        problem
        and f"no checkpoint in {folder.root} is whole ({problem}): restore one, or set another run.name to "
        "start anew"
    )
    return None


def find_damage(folder: CheckpointFolder, checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files by their checksums, the same answer on every rank; each reads a
    share of them. Collective."""
    damage = first_damage(checkpoint, dist.get_rank(), dist.get_world_size())
    try:
        folder.read(checkpoint)
    except UserError as error:
        damage = damage or str(error)
    return next((found for found in gather_objects(damage) if found), None)


def load_checkpoint(folder: CheckpointFolder, policy: Sharded, checkpoint: Path) -> Position:
    """Fill ``policy`` from a published checkpoint, whatever layout wrote it. Collective. Its checksums are
    not looked at.

    Raises:
        UserError: on every rank, for a checkpoint that is damaged or of another model.
    """
    position, layout = folder.read(checkpoint)
    state = policy.sharded_state(loading=True)
    if layout == current_layout():
        state["rng"] = rng_state()
    loaded = _load(state, checkpoint)
    policy.load_sharded_state(loaded, position.updates)
    if "rng" in loaded:
        _restore_rng(loaded["rng"])
    return position


def load_parameters(chunks: list[PolicyModel], checkpoint: Path) -> None:
    """Fill bare model chunks from a checkpoint, without its optimizer state. Collective.

    Raises:
        UserError: on every rank, for one that is damaged or of another model.
    """
    damage = find_damage(CheckpointFolder(checkpoint.parent), checkpoint)
    raise_everywhere(damage and f"{checkpoint} is damaged ({damage}): give another of the run's checkpoints")
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


def _load(state: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    try:
        with device.megatron_on_cpu():
            return dist_checkpointing.load(state, str(checkpoint))
    except Exception as error:  # its readers raise their own, torch's and the file system's
        raise UserError(
            f"{checkpoint} cannot be read into this model ({one_line(error)}): it is damaged or "
            "of another model; set the model that the run began with, or another run.name"
        ) from error


def current_layout() -> dict[str, int]:
    """The parallel sizes that a checkpoint is written at."""
    return {
        "tp": mpu.get_tensor_model_parallel_world_size(),
        "pp": mpu.get_pipeline_model_parallel_world_size(),
        "dp": mpu.get_data_parallel_world_size(),
    }


def rng_state() -> ShardedObject:
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
