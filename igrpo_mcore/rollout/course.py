"""One problem's way through the stages of a rollout."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from igrpo_mcore.rollout.engine import Sampling
from igrpo_mcore.types import Completion, Problem, Prompt, PromptRollout, SampleKey, Score, StageGroup


class Renderer(Protocol):
    """Problems to prompts."""

    def first(self, problem: Problem) -> Prompt:
        """The prompt q."""
        ...

    def second(self, problem: Problem, draft: Completion) -> tuple[Prompt, bool]:
        """The prompt q' with the draft, and whether the draft overflowed the prompt budget."""
        ...


@dataclass(frozen=True)
class StagePlan:
    """How one stage of one problem is sampled; sample i is drawn with ``seed`` + i."""

    name: str
    sampling: Sampling
    seed: int


@dataclass
class Course:
    """``problem`` at ``position`` of ``step``, its stages to come and those that are ``found``.

    A scheduler takes it to ``goal`` stages: all, or all but the last where the last is left to the next
    step. ``choice_seeds`` are those of the choice after each stage, ``source`` the position whose choice
    conditions this problem's next stage (its own, but for ``selection=mismatched``). ``whole`` exempts it
    from an early exit.
    """

    problem: Problem
    step: int
    position: int
    stages: Sequence[StagePlan]
    choice_seeds: Sequence[int]
    goal: int
    source: int
    whole: bool = True
    found: list[StageGroup] = field(default_factory=list)

    # of the stage that is being sampled
    prompt: Prompt | None = None
    completions: dict[int, Completion] = field(default_factory=dict)
    scores: dict[int, Score] = field(default_factory=dict)
    chosen: StageGroup | None = None
    """The present stage with its choice, where the next one's prompt still waits for ``source``."""

    @property
    def stage(self) -> StagePlan:
        """The stage that is next or being sampled."""
        return self.stages[len(self.found)]

    @property
    def complete(self) -> bool:
        """Whether every stage was sampled."""
        return len(self.found) == len(self.stages)

    @property
    def at_goal(self) -> bool:
        return len(self.found) >= self.goal

    @property
    def stage_scored(self) -> bool:
        """Whether every sample of the present stage has its score."""
        return len(self.scores) == self.stage.sampling.num_samples

    def key(self, index: int) -> SampleKey:
        """Sample ``index`` of the present stage."""
        return SampleKey(self.step, self.stage.name, self.position, index)

    def samples(self) -> list[SampleKey]:
        """All samples of the present stage."""
        return [self.key(index) for index in range(self.stage.sampling.num_samples)]

    def begin_stage(self, renderer: Renderer) -> Prompt:
        """The present stage's prompt: q, or q' with the choice of the stage before."""
        if self.prompt is None:
            self.prompt = renderer.first(self.problem)
            if self.found:
                self.prompt, _ = renderer.second(self.problem, self.found[-1].given[0])
        self.completions, self.scores, self.chosen = {}, {}, None
        return self.prompt

    def end_stage(self, group: StageGroup, next_prompt: Prompt | None = None) -> None:
        """The present stage is ``group``; the next one, if any, is sampled under ``next_prompt``."""
        self.found.append(group)
        self.prompt = next_prompt

    def rollout(self) -> PromptRollout:
        """Of a course that is complete."""
        return PromptRollout(tuple(self.found))
