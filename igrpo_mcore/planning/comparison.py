"""The schedules of a recipe's rollout beside GRPO at the same number of completions a prompt."""

from dataclasses import dataclass

from igrpo_mcore.config.schema import Config, Schedule, Selection
from igrpo_mcore.planning.limits import replanned
from igrpo_mcore.planning.plan import PlannedStep


def _name(schedule: Schedule, early_exit: bool) -> str:
    return f"{schedule}, early exit" if early_exit else f"{schedule}"


def own_schedule(config: Config) -> str:
    """The name of a recipe's schedule among ``SCHEDULES``."""
    return _name(config.rollout.schedule, config.rollout.draft_early_exit)


GRPO = {"rollout.selection": Selection.none, "rollout.draft_early_exit": False}
SCHEDULES: dict[str, dict] = {
    _name(schedule, early_exit): {"rollout.schedule": schedule, "rollout.draft_early_exit": early_exit}
    for schedule in Schedule
    for early_exit in (False, True)
}
"""Changes of a recipe, by name."""


@dataclass(frozen=True)
class ScheduleTime:
    """Seconds of all stages of a rollout, and of a step."""

    name: str
    rollout: float
    step: float

    def over(self, grpo: "ScheduleTime") -> tuple[float, float]:
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
