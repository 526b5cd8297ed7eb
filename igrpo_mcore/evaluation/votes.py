"""Majority vote: completions with equal final answers, as the accuracy reward reads them, vote together."""

from collections.abc import Sequence

from igrpo_mcore.config.schema import RewardConfig
from igrpo_mcore.evaluation import ballot
from igrpo_mcore.evaluation.answered import Answered
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.rewards.pool import RewardPool

TIME_LIMIT_S = 60.0
"""Of one problem's vote; a slower one is counted by answers that are written alike."""


def winners(
    answered: Sequence[Answered], options: RewardOptions, workers: int | None = None
) -> list[int | None]:
    """The first completion of each problem's largest class of equal answers, None where nobody answers.

    A completion without a final answer does not vote; a tie goes to the class that was sampled first. The
    votes are counted in worker processes under ``TIME_LIMIT_S``, since whether two expressions are equal may
    take arbitrarily long.
    """
    name = f"{ballot.__name__}:{ballot.vote.__name__}"
    reward = RewardConfig(weights={name: 1.0}, time_limit_s=TIME_LIMIT_S, workers=workers)
    ballots = [ballot.ballot(line.texts, options) for line in answered]
    with RewardPool(reward, options) as pool:
        scores = pool.score([line.problem for line in answered], ballots)
    found: list[int | None] = []
    for line, score in zip(answered, scores, strict=True):
        failed = bool(score.failures)
        first = ballot.winner(line.problem, line.texts, options, alike=True) if failed else int(score.total)
        found.append(None if first == ballot.WITHOUT_ANSWER else first)
    return found
