"""Enumerate the legal layouts of a number of GPUs and keep the best that fit."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from igrpo_mcore.config.schema import Config, Recompute
from igrpo_mcore.errors import UserError
from igrpo_mcore.planning.limits import replanned
from igrpo_mcore.planning.plan import PlannedStep
from igrpo_mcore.policy.architecture import check_layout

SLACK = 0.10
"""Share of the GPU that a proposal leaves free beyond what is planned."""
SHARE_STEP = 0.05
"""Grid of ``rollout.memory_fraction``."""
NEAR = 0.05
"""Difference in cost that the estimates cannot tell: about what they miss published runs by."""
NOTHING = 0.001
"""Share of a step's time that a larger engine share must gain to be worth it."""
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


def gpu_seconds(step: PlannedStep) -> float:
    """What a step costs, its share of the checkpoints included."""
    return step.layout.world * step.time.with_saves


def comfortable(step: PlannedStep) -> bool:
    """Whether it fits and leaves ``SLACK``."""
    return step.fits and step.memory.margin >= SLACK * step.memory.capacity


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


def _with_share(step: PlannedStep, count: int) -> PlannedStep:
    """The plan with ``count`` steps of ``rollout.memory_fraction``."""
    return replanned(step, {"rollout.memory_fraction": round(count * SHARE_STEP, 2)}, step.layout.world)


def with_largest_share(step: PlannedStep) -> PlannedStep | None:
    """The plan with the largest engine share that leaves ``SLACK``, if the rest does."""
    memory = step.memory
    others = max(p.total for p in memory.phases if p.name != "rollout")
    rollout = memory.phase("rollout")
    awake = ("engine weights", "engine activations", "engine graphs", "KV cache")
    resident = sum(size for part, size in rollout.parts.items() if part not in awake)
    free = memory.capacity * (1 - SLACK)
    if others > free or free <= resident:
        return None
    found = _with_share(step, int((free - resident) / memory.capacity / SHARE_STEP))
    return found if comfortable(found) else None


def with_smallest_share(step: PlannedStep) -> PlannedStep:
    """The plan with the smallest engine share that costs no time against the plan's own."""
    most = step.time.step * (1 + NOTHING)

    def serves(count: int) -> bool:
        tried = _with_share(step, count)
        return tried.fits and tried.time.step <= most

    own = round(step.config.rollout.memory_fraction / SHARE_STEP)
    return _with_share(step, 1 + bisect_left(range(1, own), True, key=serves))


def search(step: PlannedStep, world: int | None = None, count: int = 5) -> list[Proposal]:
    """The ``count`` cheapest layouts of ``world`` GPUs (the plan's own number unless given) that fit with
    slack: least GPU-seconds a step first.

    Beside the layout it varies recomputation and the micro-batch (the recipe's, or one longest sequence);
    of the engine's share it takes the smallest that costs no time. Among layouts that cost the same but for
    ``NEAR`` the one with fewer pipeline chunks comes first.
    """
    world = world or step.layout.world
    config, node = step.config, step.layout.gpus_per_node
    budgets = sorted({config.train.micro_batch_tokens, config.rollout.longest_sequence})
    found: list[tuple[dict[str, Any], PlannedStep]] = []
    for layout in legal_layouts(config, step.model.architecture, world, node):
        for recompute in (Recompute.none, Recompute.full):
            for budget in budgets:
                changes = layout | {"model.recompute": recompute, "train.micro_batch_tokens": budget}
                planned = with_largest_share(replanned(step, changes, world))
                if planned:
                    found.append((changes, planned))
    least = min((gpu_seconds(planned) for _, planned in found), default=0.0)

    def rank(pair: tuple[dict[str, Any], PlannedStep]) -> tuple[int, int, float, int]:
        planned, cost = pair[1], gpu_seconds(pair[1])
        chunks = planned.layout.pp * planned.layout.vpp
        return int((cost / least - 1) / NEAR), chunks, cost, -planned.memory.margin

    found.sort(key=rank)
    proposals = []
    for changes, planned in _distinct(found, count):
        smallest = with_smallest_share(planned)
        share = {"rollout.memory_fraction": smallest.config.rollout.memory_fraction}
        proposals.append(Proposal(changes | share, smallest))
    return proposals


def _distinct(
    found: list[tuple[dict[str, Any], PlannedStep]], count: int
) -> list[tuple[dict[str, Any], PlannedStep]]:
    """The first ``count`` with different layouts."""
    kept: dict[tuple, tuple[dict[str, Any], PlannedStep]] = {}
    for changes, planned in found:
        kept.setdefault((planned.layout, planned.config.model.recompute), (changes, planned))
    return list(kept.values())[:count]
