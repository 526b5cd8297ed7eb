"""The plain data that flows through one step: problem -> prompt -> completions -> groups.

Shape suffixes used throughout: T tokens, S sequences, B prompts in a step, G group, N drafts,
V vocabulary, H hidden.
"""

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class Problem:
    """One line of a problem set."""

    id: str
    problem: str
    answer: str
    entry: str = ""
    """What a generated problem's own verifier wants to know of it, as JSON."""
    pass_rate: float | None = None
    """Share of right answers to it, 0 to 1, where the set says so (``data.pass_rate_field``)."""


@dataclass(frozen=True)
class Prompt:
    """A problem rendered to the token ids that the engine is given (a draft included in stage 2)."""

    problem: Problem
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """What the rewards said of one completion.

    ``total`` is the weighted sum; ``parts`` holds the unweighted value of each reward by name;
    ``failures`` names the rewards that raised or ran out of time (they count as 0 in ``total``).
    """

    total: float
    parts: dict[str, float] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    use: dict[str, float] = field(default_factory=dict, compare=False)
    """What scoring it took where that is counted, by metric (``judge/calls``, …); summed over a step."""


@dataclass(frozen=True)
class Completion:
    """What the engine sampled after a prompt.

    ``logprobs`` are the sampler's own, one a token, natural log, at the sampling temperature.
    ``truncated`` is true where the token budget ended the completion.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    truncated: bool


class SampleKey(NamedTuple):
    """One completion of a run: sample ``sample`` (from 0) of the stage ``stage`` (its name in
    ``config/stages.py``) for the problem at ``position`` of ``step`` (counted over all engines)."""

    step: int
    stage: str
    position: int
    sample: int


@dataclass(frozen=True)
class Group:
    """All completions sampled after one prompt, each with its score."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    scores: tuple[Score, ...]

    @property
    def rewards(self) -> list[float]:
        """The total reward of each completion, in order."""
        return [score.total for score in self.scores]


@dataclass(frozen=True)
class StageGroup:
    """What the stage ``name`` sampled for one problem.

    ``chosen`` is the index of the completion that conditions the next stage, None in the last one;
    ``overflowed`` is true where that completion did not fit the next prompt's budget. ``censored`` counts
    the completions that ``rollout.draft_early_exit`` ended before they could be scored; None where it
    could end none, so that the group is an unbiased sample. ``foreign`` is the completion of another problem
    that conditions the next stage in place of ``chosen``, with its score there
    (``rollout.selection=mismatched``).
    """

    name: str
    group: Group
    chosen: int | None = None
    overflowed: bool = False
    censored: int | None = None
    foreign: tuple[Completion, Score] | None = None

    @property
    def choice(self) -> tuple[Completion, Score]:
        """The chosen completion of this problem, with its score."""
        assert self.chosen is not None
        return self.group.completions[self.chosen], self.group.scores[self.chosen]

    @property
    def given(self) -> tuple[Completion, Score]:
        """What the next stage was shown, and its score for the problem that it was written for."""
        return self.choice if self.foreign is None else self.foreign


@dataclass(frozen=True)
class PromptRollout:
    """Everything sampled for one problem in one step, stage by stage (paper, section 3).

    iGRPO has two stages, drafts under q and refinements under q' = Concat(q, draft); plain GRPO has one.
    """

    stages: tuple[StageGroup, ...]

    @property
    def single_shot(self) -> Group:
        """The first stage's group, sampled under the bare prompt q."""
        return self.stages[0].group

    @property
    def trained(self) -> Group:
        """The last stage's group, which the update is taken on."""
        return self.stages[-1].group


@dataclass(frozen=True)
class TrainingSequence:
    """One training sequence: a prompt and its completion, with per-sequence training inputs.

    ``logprobs`` are the sampler's (natural log, sampling temperature), one a completion token.
    ``weight`` multiplies each completion token's objective, so that the loss of a batch is
    Σ weight · objective over all ranks (see ``igrpo_mcore.objective.aggregation``).
    ``sampled_here`` is false where the completion was sampled under another prompt than this one, so that
    the trainer's log-probs are not to be those of the sampler.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    advantage: float = 0.0
    weight: float = 0.0
    sampled_here: bool = True

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)
