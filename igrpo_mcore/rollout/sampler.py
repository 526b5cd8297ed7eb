"""From problems to scored completions on every rank: the engines, the prompts and the rewards together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from igrpo_mcore.collective import gather_objects
from igrpo_mcore.config.schema import Config, Schedule
from igrpo_mcore.data.mixture import Mixture, training_problems
from igrpo_mcore.data.templates import PromptRenderer
from igrpo_mcore.rewards.options import greatest_reward, options_of
from igrpo_mcore.rewards.pool import RewardPool
from igrpo_mcore.rollout.course import Course
from igrpo_mcore.rollout.courses import single_shot_course, training_course
from igrpo_mcore.rollout.dealing import deal_courses
from igrpo_mcore.rollout.engine import Sampling
from igrpo_mcore.rollout.refill import has_spread
from igrpo_mcore.rollout.scheduler import Scheduler
from igrpo_mcore.rollout.shared_scorer import SharedScorer
from igrpo_mcore.rollout.stage_stats import StageStats, in_turn, over_engines
from igrpo_mcore.rollout.stop_tokens import stop_token_ids
from igrpo_mcore.rollout.vllm_engine import VLLMEngine
from igrpo_mcore.run.folder import journal_dir
from igrpo_mcore.run.journal import Journal, NoJournal
from igrpo_mcore.run.journal_origin import origin_of
from igrpo_mcore.run.phases import Phases
from igrpo_mcore.types import Group, Problem, PromptRollout


@dataclass(frozen=True)
class StepSamples:
    """What a step trains on, in the order of its prompts.

    ``fresh`` was sampled by the weights of this step: the same, but with ``rollout.lag`` those of the
    step to come (empty near the end of a run). ``drawn`` problems were taken from the data for this step.
    ``refilled`` groups without spread were replaced.
    """

    rollouts: list[PromptRollout]
    fresh: list[PromptRollout]
    stats: dict[str, StageStats]
    drawn: int
    refilled: int = 0


class Sampler:
    """One rank's part of sampling. Every call is a collective; what it returns is the same on all ranks."""

    def __init__(
        self,
        config: Config,
        engine: VLLMEngine,
        tokenizer: Any,
        phases: Phases,
        *,
        trains: bool = True,
    ) -> None:
        """Without ``trains`` there is no ``sample``, and ``data.path`` is not read."""
        self.engine = engine
        self._config, self._phases = config, phases
        renderer = PromptRenderer(tokenizer, config.data, config.rollout)
        nothing = Mixture([], [], [])
        seed = config.train.seed
        self._problems = training_problems(config.data, seed, renderer.fits) if trains else nothing
        self._stop_token_ids = stop_token_ids(config.model.path, tokenizer)
        self.reward_options = options_of(
            config.reward,
            opens_thinking=renderer.opens_thinking,
            max_completion_tokens=config.rollout.max_completion_tokens,
        )
        self._rewards = RewardPool(config.reward, self.reward_options) if engine.is_first_rank else None
        self._scheduler = Scheduler(
            engine,
            SharedScorer(self._rewards, engine.group),
            renderer,
            config.rollout,
            greatest=greatest_reward(config.reward),
        )
        self.journal = NoJournal()
        self._begun: dict[int, list[Course]] = {}
        """Of the steps to come, by step: the same on every rank."""

    def open_journal(self, first_step: int) -> None:
        """Where ``run.journal`` says so, keep what is sampled from now on, and go on with what earlier starts
        of the run kept of ``first_step`` and later steps. Collective."""
        if self._config.run.journal:
            self.journal = Journal(
                journal_dir(self._config.run),
                origin_of(self._config, self._problems.problems),
                first_step=first_step,
                rank=dist.get_rank(),
                writes=self.engine.is_first_rank,
            )

    def sample(self, step: int, drawn: int) -> StepSamples:
        """What ``step`` trains on. The step takes the problems after the first ``drawn``."""
        options, count = self._config.rollout, self._config.train.prompts_per_step
        newest, last = step + options.lag, max(step, self._config.train.steps)
        work: list[Course] = []
        for later in range(step, min(newest, last) + 1):
            work += self._courses(later, drawn + (later - step) * count)
        if options.schedule == Schedule.ahead and newest < last:
            for course in self._courses(newest + 1, drawn + (newest + 1 - step) * count):
                course.goal = len(course.stages) - 1
                work.append(course)
        stats = self._run(work, self.journal)
        rollouts = self._complete(step)
        fresh = rollouts if not options.lag else [c.rollout() for c in self._begun.get(newest, [])]
        taken, refilled = count, 0
        for _ in range(options.max_refills):
            flat = [i for i, rollout in enumerate(rollouts) if not has_spread(rollout.trained)]
            if not flat:
                break
            fills = self._new(step, drawn + taken, len(flat), first_position=taken)
            stats = in_turn([stats, self._run(fills, self.journal)])
            for index, course in zip(flat, fills, strict=True):
                rollouts[index] = course.rollout()
            taken, refilled = taken + len(flat), refilled + len(flat)
        return StepSamples(rollouts, fresh, stats, taken, refilled)

    def single_shot(
        self, problems: Sequence[Problem], sampling: Sampling, key: str, first: int = 0
    ) -> list[Group]:
        """One group a problem under q; ``key`` sets its seeds apart from those of training.

        ``first`` is the place of the first problem in the whole set, which its seed derives from.
        ``sampling.stop_token_ids`` are filled in.
        """
        stopping, seed = sampling.stopping_at(self._stop_token_ids), self._config.train.seed
        courses = [single_shot_course(p, i, key, stopping, seed) for i, p in enumerate(problems, start=first)]
        self._run(courses)
        return [course.found[0].group for course in courses]

    def close(self) -> None:
        """End the journal and the reward workers, then the engine, which takes the process groups with it."""
        self.journal.close()
        if self._rewards:
            self._rewards.close()
        self.engine.close()

    def _courses(self, step: int, drawn: int) -> list[Course]:
        """Those of ``step``, as far as they have come."""
        if step not in self._begun:
            self._begun[step] = self._new(step, drawn, self._config.train.prompts_per_step)
        for course in self._begun[step]:
            course.goal = len(course.stages)
        return self._begun[step]

    def _new(self, step: int, drawn: int, count: int, first_position: int = 0) -> list[Course]:
        config = self._config
        return [
            training_course(
                problem,
                step,
                first_position + i,
                first_position + count,
                config.rollout,
                config.train.seed,
                self._stop_token_ids,
            )
            for i, problem in enumerate(self._problems.take(drawn, count))
        ]

    def _complete(self, step: int) -> list[PromptRollout]:
        return [course.rollout() for course in self._begun.pop(step)]

    def _run(self, courses: Sequence[Course], journal: NoJournal | None = None) -> dict[str, StageStats]:
        """Take all ``courses`` to their goals, each on one engine; afterwards every rank has all of them."""
        mine = deal_courses(courses, self.engine.count, self._config)[self.engine.index]
        with self._phases("engine"):
            stats = self._scheduler.run([courses[i] for i in mine], journal)
        with self._phases("gather"):
            found = {i: courses[i].found for i in mine}
            parts = gather_objects((found, stats) if self.engine.is_first_rank else None)
        known = [part for part in parts if part is not None]
        for part, _ in known:
            for i, groups in part.items():
                courses[i].found = groups
        return over_engines([of_engine for _, of_engine in known])
