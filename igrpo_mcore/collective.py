"""Small agreements between all ranks."""

import contextlib

import torch.distributed as dist

from igrpo_mcore.errors import UserError


def gather_objects[T](mine: T) -> list[T]:
    """Every rank's object, index = rank. Collective; one rank alone needs no process group."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [mine]
    gathered: list = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, mine)
    return gathered


def raise_everywhere(problem: str | None) -> None:
    """Collective: if any rank has a problem, raise the first one as UserError on every rank."""
    first = next((p for p in gather_objects(problem) if p), None)
    if first:
        raise UserError(first)


def wait_for_all_ranks() -> None:
    """Return when every rank has come this far; at once where a rank is gone. Collective."""
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):  # the rank that is gone has said why
            dist.barrier()
