"""Enumerate the legal layouts of a number of GPUs and keep the best that fit."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from igrpo_mcore.config.schema import Config, Recompute
from igrpo_mcore.errors import UserError
from igrpo_mcore.planning.limits import replanned
from igrpo_mcore.planning.plan import PlannedStep
from igrpo_mcore.policy.architecture import check_layout

COMFORT = 0.03
"""Share of the GPU that a proposal leaves free beyond what is planned."""
_SIZES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Proposal:
    """Options to set, and the plan with them."""

    changes: dict[str, Any]
    step: PlannedStep

    def overrides(self) -> list[str]:
        """As the command line takes them."""
        return [f"{name}={_text(value)}" for name, value in self.changes.items()]


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def comfortable(step: PlannedStep) -> bool:
    """Whether it fits with a little to spare."""
    return step.fits and step.memory.margin >= COMFORT * step.memory.capacity


def legal_layouts(config: Config, architecture: Any, world: int, gpus_per_node: int) -> Iterator[dict]:
    """Options of every layout that ``check_layout`` accepts; tensor parallelism stays inside a node."""
    for tp in _SIZES:
        for pp in _SIZES:
            for vpp in (1, 2) if pp > 1 else (1,):
                for rollout_tp in _SIZES:
                    if max(tp, rollout_tp) > gpus_per_node or world % (tp * pp):
                        continue
                    changes = {
                        "parallel.tp": tp,
                        "parallel.pp": pp,
                        "parallel.vpp": vpp,
                        "parallel.sp": tp > 1,
                        "parallel.dp": None,
                        "rollout.tp": rollout_tp,
                    }
                    parallel = type(config.parallel)(
                        tp=tp, pp=pp, vpp=vpp, sp=tp > 1, cp=config.parallel.cp, ep=config.parallel.ep
                    )
                    try:
                        check_layout(architecture, parallel, rollout_tp, world)
                    except UserError:
                        continue
                    yield changes


def _with_engine_share(step: PlannedStep) -> PlannedStep | None:
    """The plan with the largest comfortable ``rollout.memory_fraction``, if the rest fits."""
    memory = step.memory
    others = max(p.total for p in memory.phases if p.name != "rollout")
    rollout = memory.phase("rollout")
    awake = ("engine weights", "engine activations", "engine graphs", "KV cache")
    resident = sum(size for part, size in rollout.parts.items() if part not in awake)
    free = memory.capacity * (1 - COMFORT) - resident
    if others > memory.capacity * (1 - COMFORT) or free <= 0:
        return None
    fraction = min(0.9, int(100 * free / memory.capacity) / 100)
    if fraction <= 0:
        return None
    found = replanned(step, {"rollout.memory_fraction": fraction}, step.layout.world)
    return found if comfortable(found) else None


def search(step: PlannedStep, world: int | None = None, count: int = 5) -> list[Proposal]:
    """The ``count`` fastest layouts of ``world`` GPUs (the plan's own number unless given) that fit.

    Beside the layout it varies recomputation, the micro-batch (the recipe's, or one longest sequence)
    and takes the largest engine share. Times are estimates: near ones may trade places.
    """
    world = world or step.layout.world
    config, node = step.config, step.layout.gpus_per_node
    longest = config.rollout.longest_sequence
    budgets = sorted({config.train.micro_batch_tokens, longest})
    found: list[Proposal] = []
    for layout in legal_layouts(config, step.model.architecture, world, node):
        for recompute in (Recompute.none, Recompute.full):
            for budget in budgets:
                changes = layout | {"model.recompute": recompute, "train.micro_batch_tokens": budget}
                planned = _with_engine_share(replanned(step, changes, world))
                if planned:
                    share = {"rollout.memory_fraction": planned.config.rollout.memory_fraction}
                    found.append(Proposal(changes | share, planned))
    found.sort(key=lambda p: (p.step.time.step, -p.step.memory.margin))
    return _distinct(found, count)


def _distinct(proposals: list[Proposal], count: int) -> list[Proposal]:
    """The first ``count`` with different layouts."""
    kept: dict[tuple, Proposal] = {}
    for proposal in proposals:
        kept.setdefault((proposal.step.layout, proposal.step.config.model.recompute), proposal)
    return list(kept.values())[:count]
