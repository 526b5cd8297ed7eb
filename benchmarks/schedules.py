"""The schedules of a rollout: the real scheduler replayed over simulated engines, beside the plan of them.

    PYTHONPATH=.:kernels .venv/bin/python benchmarks/schedules.py [RECIPE] [--gpu h100-80g] [--nodes 2]
        [--completion-tokens 2048] [--lengths even|log-normal] [--steps 2] [--seeds 3] [OVERRIDE ...]

Prints of each schedule what the plan says, the simulated seconds of a rollout (the slowest engine's and the
mean engine's, means over steps and seeds), their ratio, and both against GRPO at the same number of
completions. No wall time is in it: docs/plan.md says what is simulated and what the two have in common.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from igrpo_mcore.config.load import load_config
from igrpo_mcore.config.schema import Config, Schedule, Selection
from igrpo_mcore.planning.command import planned_recipe
from igrpo_mcore.planning.comparison import GRPO, SCHEDULES
from igrpo_mcore.planning.drawn import RIGHT, DrawnCompletions, even_lengths, log_normal_lengths
from igrpo_mcore.planning.limits import replanned
from igrpo_mcore.planning.plan import PlannedStep
from igrpo_mcore.planning.simulated_engine import SimulatedEngine, speed_of
from igrpo_mcore.planning.workload import Lengths
from igrpo_mcore.rollout.course import Course
from igrpo_mcore.rollout.courses import training_course
from igrpo_mcore.rollout.dealing import deal_courses
from igrpo_mcore.rollout.scheduler import Scheduler
from igrpo_mcore.types import Completion, Problem, Prompt, SampleKey, Score

GREATEST = 2.0
LENGTHS = {"even": even_lengths, "log-normal": log_normal_lengths}


class SimulatedPrompts:
    """q is the problem's number and as many zeros as make it ``length`` tokens, q' is q and the draft."""

    def __init__(self, length: int, longest: int) -> None:
        self._length, self._longest = length, longest

    def first(self, problem: Problem) -> Prompt:
        return Prompt(problem, (int(problem.id), *(0,) * (self._length - 1)))

    def second(self, problem: Problem, draft: Completion) -> tuple[Prompt, bool]:
        q = self.first(problem).token_ids
        kept = draft.token_ids[: self._longest - len(q)]
        return Prompt(problem, q + kept), len(kept) < len(draft.token_ids)


class SimulatedScorer:
    """Each score takes one of ``workers`` ``seconds`` of the engine's clock."""

    def __init__(self, engine: SimulatedEngine, seconds: float, workers: int) -> None:
        self._engine, self._seconds = engine, seconds
        self._free_at = [0.0] * workers
        self._scored: dict[SampleKey, tuple[float, Score]] = {}

    def submit(self, key: SampleKey, problem: Problem, completion: Completion) -> None:
        worker = self._free_at.index(min(self._free_at))
        done = max(self._free_at[worker], self._engine.clock) + self._seconds
        self._free_at[worker] = done
        total = GREATEST if completion.text == RIGHT else GREATEST / 2
        self._scored[key] = done, Score(total, {"accuracy": total - 1})

    def advance(self) -> None:
        """Workers need no driving here."""

    def take(self, keys: Sequence[SampleKey]) -> list[Score]:
        taken = [self._scored.pop(key) for key in keys]
        self._engine.stand(max(0.0, max(done for done, _ in taken) - self._engine.clock))
        return [score for _, score in taken]

    def ready(self) -> list[tuple[SampleKey, Score]]:
        keys = [key for key, (done, _) in self._scored.items() if done <= self._engine.clock]
        return [(key, self._scored.pop(key)[1]) for key in keys]

    def drop(self, keys: Sequence[SampleKey]) -> None:
        for key in keys:
            self._scored.pop(key, None)


@dataclass(frozen=True)
class Replay:
    """Of one step: seconds of the slowest engine, for which all wait, and of the mean one; tokens of all
    engines, aborted ones too."""

    seconds: float
    mean_seconds: float
    sampled: int
    preempted: int


def replay(step: PlannedStep, lengths: str, steps: int, seed: int) -> list[Replay]:
    """``steps`` rollouts of the plan's recipe by the real scheduler, one simulated engine each."""
    config = step.config
    draw = DrawnCompletions(
        LENGTHS[lengths](step.lengths.completion, config.rollout.max_completion_tokens), seed
    )
    courses: dict[int, list[Course]] = {}
    return [_replay_step(number, courses, step, draw, seed) for number in range(1, steps + 1)]


def _courses(number: int, config: Config, seed: int) -> list[Course]:
    count = config.train.prompts_per_step
    problems = [Problem(str(number * count + i), "", "") for i in range(count)]
    return [training_course(p, number, i, count, config.rollout, seed, ()) for i, p in enumerate(problems)]


def _replay_step(
    number: int, begun: dict[int, list[Course]], step: PlannedStep, draw: DrawnCompletions, seed: int
) -> Replay:
    """As ``Sampler.sample``, without ranks."""
    config = step.config
    work = begun.pop(number, None) or _courses(number, config, seed)
    for course in work:
        course.goal = len(course.stages)
    if config.rollout.schedule == Schedule.ahead and config.rollout.selection != Selection.none:
        begun[number + 1] = _courses(number + 1, config, seed)
        for course in begun[number + 1]:
            course.goal = len(course.stages) - 1
        work = work + begun[number + 1]
    engines = []
    for part in deal_courses(work, step.layout.engines, config):
        engine = SimulatedEngine(speed_of(step), draw)
        prompts = SimulatedPrompts(step.lengths.prompt, config.rollout.longest_prompt)
        scorer = SimulatedScorer(engine, step.efficiency.reward_s, config.reward.workers or 4)
        Scheduler(engine, scorer, prompts, config.rollout, greatest=GREATEST).run([work[i] for i in part])
        engines.append(engine)
    return Replay(
        max(engine.clock for engine in engines),
        fmean(engine.clock for engine in engines),
        sum(engine.sampled for engine in engines),
        sum(engine.preempted for engine in engines),
    )


def replayed(step: PlannedStep, lengths: str = "even", steps: int = 1, seeds: int = 2) -> list[Replay]:
    """``steps`` of each seed; where drafts are sampled ahead, after one that samples its own besides."""
    first = 1 if step.config.rollout.schedule == Schedule.ahead else 0
    return [r for seed in range(seeds) for r in replay(step, lengths, first + steps, seed)[first:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe", type=Path, nargs="?", default=Path("recipes/igrpo_14b.yaml"))
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--gpu", default="h100-80g")
    parser.add_argument("--nodes", type=int)
    parser.add_argument("--completion-tokens", type=int)
    parser.add_argument("--lengths", choices=LENGTHS, default="even")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    config = load_config(options.recipe, options.overrides)
    lengths = Lengths(256, options.completion_tokens) if options.completion_tokens else None
    step = planned_recipe(options.recipe, config, options.gpu, options.nodes, 8, lengths)
    table = Table(title=f"{options.recipe}: rollouts of a step, {options.lengths} lengths")
    table.add_column("rollout.schedule")
    for name in (
        "plan s",
        "replay s",
        "mean engine",
        "ratio",
        "x GRPO",
        "replayed",
        "tokens",
        "preempted",
    ):
        table.add_column(name, justify="right")
    first = None
    for name, changes in {"GRPO": GRPO, **SCHEDULES}.items():
        planned = replanned(step, changes)
        plan = planned.time.drafts + planned.time.refinements
        found = replayed(planned, options.lengths, options.steps, options.seeds)
        seconds, tokens = fmean(r.seconds for r in found), fmean(r.sampled for r in found)
        first = first or (plan, seconds)
        table.add_row(
            name,
            f"{plan:.1f}",
            f"{seconds:.1f}",
            f"{fmean(r.mean_seconds for r in found):.1f}",
            f"{plan / seconds:.3f}",
            f"{plan / first[0]:.2f}",
            f"{seconds / first[1]:.2f}",
            f"{tokens:,.0f}",
            f"{fmean(r.preempted for r in found):.0f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
