"""Rewards of tests, named as a user's own: ``tests.support.rewards:function``."""

import time

from igrpo_mcore.types import Completion, Problem


def digit_share(problem: Problem, completion: Completion) -> float:
    """Share of characters that are digits: random models score unevenly on it."""
    text = completion.text
    return sum(c.isdigit() for c in text) / max(1, len(text))


def hangs(problem: Problem, completion: Completion) -> float:
    """Never returns in time."""
    time.sleep(3600)
    return 1.0


def raises(problem: Problem, completion: Completion) -> float:
    """Always fails."""
    raise RuntimeError("no verdict today")
