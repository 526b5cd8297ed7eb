"""What to change where a plan does not fit: every change is planned again, so that its gain is a number."""

from dataclasses import dataclass
from typing import Any

from igrpo_mcore.config.schema import Recompute
from igrpo_mcore.errors import UserError
from igrpo_mcore.planning.limits import fraction_limits, micro_batch_limit, replanned
from igrpo_mcore.planning.plan import PlannedStep
from igrpo_mcore.planning.search import Proposal, search


@dataclass(frozen=True)
class Change:
    """One way out. ``gpus`` is the number of GPUs it needs; ``gained`` the margin that it adds, bytes."""

    proposal: Proposal
    gpus: int
    gained: int

    @property
    def step(self) -> PlannedStep:
        return self.proposal.step


def _small_changes(step: PlannedStep) -> list[dict[str, Any]]:
    config, layout = step.config, step.layout
    changes: list[dict[str, Any]] = []
    if config.model.recompute == Recompute.none:
        changes.append({"model.recompute": Recompute.full})
    if layout.tp > 1 and not layout.sp:
        changes.append({"parallel.sp": True})
    largest, smallest = fraction_limits(step)
    if largest is not None and smallest is not None:
        fraction = config.rollout.memory_fraction
        changes.append({"rollout.memory_fraction": smallest if fraction < smallest else largest})
    budget = micro_batch_limit(step)
    if budget and budget < config.train.micro_batch_tokens:
        changes.append({"train.micro_batch_tokens": budget})
    changes.append({"rollout.tp": 2 * layout.rollout_tp})
    for field, value in (("tp", 2 * layout.tp), ("pp", 2 * layout.pp)):
        change: dict[str, Any] = {f"parallel.{field}": value, "parallel.dp": None}
        changes.append(change | ({"parallel.sp": True} if field == "tp" else {}))
    return changes


def _try(step: PlannedStep, changes: dict[str, Any], world: int | None = None) -> PlannedStep | None:
    try:
        return replanned(step, changes, world)
    except UserError:
        return None  # a layout that the model or the number of ranks cannot carry


def advise(step: PlannedStep, count: int = 3) -> list[Change]:
    """The best ``count`` changes that make a plan fit, each alone; fewest GPUs first, then fastest.

    One option at a time where that is enough, then the best layouts on the same GPUs, then on 2 to
    32 times as many. Empty where the plan fits, or where not even that many would do.
    """
    if step.fits:
        return []

    def change(proposal: Proposal) -> Change:
        gained = proposal.step.memory.margin - step.memory.margin
        return Change(proposal, proposal.step.layout.world, gained)

    found: list[Change] = []
    for changes in _small_changes(step):
        planned = _try(step, changes)
        if planned and planned.fits:
            found.append(change(Proposal(changes, planned)))
    found.sort(key=lambda c: c.step.time.step)
    factor = 1
    while len(found) < count and factor <= 32:
        world = step.layout.world * factor
        same = _try(step, {"parallel.dp": None}, world) if factor > 1 else None
        if same and same.fits:
            found.append(change(Proposal({"parallel.dp": None}, same)))
        found += [change(p) for p in search(step, world, count - len(found))] if len(found) < count else []
        factor *= 2
    return found[:count]
