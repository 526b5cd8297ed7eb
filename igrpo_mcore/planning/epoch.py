"""Hours and GPU-hours of one epoch."""

from dataclasses import dataclass
from pathlib import Path

from igrpo_mcore.config.schema import Config
from igrpo_mcore.planning.plan import PlannedStep

KNOWN_PROBLEMS = {
    "DigitalLearningGmbH/MATH-lighteval": 7500,
    "open-r1/OpenR1-Math-220k": 93733,
    "openai/gsm8k": 7473,
}
"""Hub id -> problems of its training split, so that a plan needs no network (MATH: the paper's count)."""


@dataclass(frozen=True)
class Epoch:
    """``problems`` once each; checkpoints and one start of the job are in the hours."""

    problems: int
    hours: float
    gpu_hours: float


def known_problems(config: Config) -> int | None:
    """Rows of a local file, the count of a data set known here, or None, as of a mixture: its sets end apart.

    Raises:
        UserError: the local file is no problem set.
    """
    if config.data.mixture:
        return None
    if config.data.path in KNOWN_PROBLEMS:
        known = KNOWN_PROBLEMS[config.data.path]
        return known if config.data.limit is None else min(known, config.data.limit)
    if not Path(config.data.path).expanduser().is_file():
        return None
    from igrpo_mcore.data.problems import load_problems

    return len(load_problems(config.data))


def epoch_of(step: PlannedStep, problems: int) -> Epoch:
    """One pass over ``problems``."""
    steps = problems / step.config.train.prompts_per_step
    hours = (steps * step.time.with_saves + step.time.start) / 3600
    return Epoch(problems, hours, hours * step.layout.world)
