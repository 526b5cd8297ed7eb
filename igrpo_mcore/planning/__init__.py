"""Memory and time of a run before it is submitted: pure arithmetic over the run's own tables."""

from igrpo_mcore.planning.command import run_plan
from igrpo_mcore.planning.plan import PlannedStep, planned_step

__all__ = ["PlannedStep", "planned_step", "run_plan"]
