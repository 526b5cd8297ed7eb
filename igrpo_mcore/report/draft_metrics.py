"""What a stage makes of the draft that it was given: metrics that only a method with several stages has."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from igrpo_mcore.config.stages import DRAFTS, REFINEMENTS
from igrpo_mcore.rewards.accuracy import FinalAnswer, final_answer_of, same_as_written
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.types import PromptRollout, Score, StageGroup

ABOUT_SHAPE = ("format", "overlong")
"""Rewards that do not say whether a completion is right."""


def stage_names(rollouts: Sequence[PromptRollout]) -> tuple[str, ...]:
    """A step's stages by the names of its metrics; a single stage counts as drafts and as refinements."""
    names = tuple(stage.name for stage in rollouts[0].stages) if rollouts else ()
    return names if len(names) > 1 else (DRAFTS, REFINEMENTS)


def draft_metrics(rollouts: Sequence[PromptRollout], options: RewardOptions) -> dict[str, float | None]:
    """``drafts/…`` and ``refinements/…`` of docs/metrics.md that set refinements against the chosen draft;
    with more stages, each stage against the chosen completion of the one before.

    Means are over prompts for drafts and over all refinements for refinements; "right" is ``is_right``.
    An answer repeats its draft's where ``options`` read the same number or the same text out of both; one
    without an answer repeats nothing. A draft of another problem (``rollout.selection=mismatched``) is right
    where it is so for its own; gains over it are None. All are None under plain GRPO, and a mean over nothing
    is None.

    ``drafts/best_of_n_expected`` is 1 - (1 - V)^N (arXiv 2602.09000, proposition 3.1) with V a prompt's
    own share of right drafts, averaged over prompts. It lies below what the proposition means (at N = 4
    and V = 1/4: 0.54 for 0.68), as it is concave in V. The unbiased estimate from the same N drafts is
    the observed ``drafts/best_accuracy`` (pass@k at k = n, arXiv 2107.03374), which stands beside it.
    """
    several = [rollout.stages for rollout in rollouts if len(rollout.stages) > 1]
    return {
        key: value
        for i, (before, after) in enumerate(pairwise(stage_names(rollouts)))
        for key, value in _pair(
            before, after, [_Refined.of(s[i], s[i + 1], options) for s in several]
        ).items()
    }


def _pair(before: str, after: str, prompts: Sequence["_Refined"]) -> dict[str, float | None]:
    pairs = [(p, score, text) for p in prompts for score, text in p.refinements]
    # rewards of two problems are not compared
    gains = [score.total - p.chosen.total for p, score, _ in pairs if p.own]

    def accuracy_given(right: bool) -> float | None:
        return _mean([is_right(score) for p, score, _ in pairs if is_right(p.chosen) == right])

    return {
        f"{before}/chosen_reward": _mean([p.chosen.total for p in prompts]),
        f"{before}/chosen_accuracy": _mean([is_right(p.chosen) for p in prompts]),
        f"{before}/best_accuracy": _mean([any(p.right_drafts) for p in prompts]),
        f"{before}/best_of_n_expected": _mean(
            [1 - (1 - fmean(p.right_drafts)) ** len(p.right_drafts) for p in prompts]
        ),
        f"{after}/gain_over_draft": _mean(gains),
        f"{after}/beat_draft": _mean([gain > 0 for gain in gains]),
        f"{after}/equal_draft": _mean([gain == 0 for gain in gains]),
        f"{after}/below_draft": _mean([gain < 0 for gain in gains]),
        f"{after}/repeat_answer": _mean(
            [same_as_written(p.answer, final_answer_of(text, p.options)) for p, _, text in pairs]
        ),
        f"{after}/repeat_text": _mean([p.text.split() == text.split() for p, _, text in pairs]),
        f"{after}/accuracy_given_right_draft": accuracy_given(True),
        f"{after}/accuracy_given_wrong_draft": accuracy_given(False),
    }


def is_right(score: Score) -> bool:
    """Accuracy of at least 1; without that reward, at least 1 in every reward but those of the shape."""
    parts = score.parts
    if "accuracy" in parts:
        return parts["accuracy"] >= 1
    judged = [value for name, value in parts.items() if name not in ABOUT_SHAPE]
    return bool(judged) and min(judged) >= 1


@dataclass(frozen=True)
class _Refined:
    """One prompt: score, text and answer of the draft that it was given, whether that was its own problem's,
    which drafts were right, and the refinements."""

    options: RewardOptions
    chosen: Score
    text: str
    own: bool
    answer: FinalAnswer | None
    right_drafts: list[bool]
    refinements: list[tuple[Score, str]]

    @classmethod
    def of(cls, drafts: StageGroup, refined: StageGroup, options: RewardOptions) -> "_Refined":
        draft, score = drafts.given
        texts = [completion.text for completion in refined.group.completions]
        return cls(
            options,
            score,
            draft.text,
            drafts.foreign is None,
            final_answer_of(draft.text, options),
            [is_right(score) for score in drafts.group.scores],
            list(zip(refined.group.scores, texts, strict=True)),
        )


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
