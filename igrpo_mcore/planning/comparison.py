"""The schedules of a recipe's rollout beside GRPO at the same number of completions a prompt."""

from dataclasses import dataclass

from igrpo_mcore.config.schema import Schedule, Selection
from igrpo_mcore.planning.limits import replanned
from igrpo_mcore.planning.plan import PlannedStep

GRPO = {"rollout.selection": Selection.none}
SCHEDULES: dict[str, dict] = {
    "barrier": {"rollout.schedule": Schedule.barrier, "rollout.draft_early_exit": False},
    "handover": {"rollout.schedule": Schedule.handover, "rollout.draft_early_exit": False},
    "handover, early exit": {"rollout.schedule": Schedule.handover, "rollout.draft_early_exit": True},
    "ahead": {"rollout.schedule": Schedule.ahead, "rollout.draft_early_exit": False},
    "ahead, early exit": {"rollout.schedule": Schedule.ahead, "rollout.draft_early_exit": True},
}


@dataclass(frozen=True)
class ScheduleTime:
    """Seconds of both stages, and of a step; over those of GRPO where ``of`` says so."""

    name: str
    rollout: float
    step: float

    def of(self, grpo: "ScheduleTime") -> tuple[float, float]:
        """(rollout, step) as multiples of GRPO's."""
        return self.rollout / grpo.rollout, self.step / grpo.step


def _time(name: str, step: PlannedStep) -> ScheduleTime:
    return ScheduleTime(name, step.time.drafts + step.time.refinements, step.time.step)


def compared(step: PlannedStep) -> list[ScheduleTime]:
    """GRPO first, then each schedule with the recipe's other options; nothing for a recipe of plain GRPO."""
    if step.config.rollout.selection == Selection.none:
        return []
    rows = {"GRPO": GRPO, **SCHEDULES}
    return [_time(name, replanned(step, changes)) for name, changes in rows.items()]
