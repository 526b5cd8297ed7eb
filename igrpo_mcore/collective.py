"""Small agreements between all ranks."""

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
