"""DAPO's soft overlong punishment at points worked out by hand: L = 20, C = 0.2 L = 4."""

import pytest

from igrpo_mcore.config.schema import RewardConfig
from igrpo_mcore.rewards.options import options_of
from igrpo_mcore.rewards.overlong import overlong_reward
from igrpo_mcore.rewards.pool import RewardPool
from igrpo_mcore.types import Completion, Problem

PROBLEM = Problem("1", "2+3", "5")


def completion(length: int) -> Completion:
    return Completion((7,) * length, (-0.1,) * length, "<answer>5</answer>", False)


@pytest.mark.parametrize(
    ("length", "expected"), [(0, 0), (16, 0), (17, -0.25), (18, -0.5), (20, -1), (25, -1)]
)
def test_it_falls_over_the_buffer(length: int, expected: float) -> None:
    options = options_of(RewardConfig(overlong_buffer=0.2), max_completion_tokens=20)
    assert overlong_reward(PROBLEM, completion(length), options=options) == pytest.approx(expected)


def test_without_a_buffer_no_length_matters() -> None:
    assert overlong_reward(PROBLEM, completion(20), options=options_of(RewardConfig())) == 0


def test_it_is_a_part_beside_accuracy() -> None:
    config = RewardConfig(weights={"accuracy": 1.0, "overlong": 0.5}, overlong_buffer=0.2, workers=1)
    with RewardPool(config, options_of(config, max_completion_tokens=20)) as pool:
        (score,) = pool.score([PROBLEM], [completion(20)])
    assert score.parts == {"accuracy": 1.0, "overlong": -1.0}
    assert score.total == pytest.approx(0.5)
