"""The gate's measure against numpy, and what it decides by."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from igrpo_mcore.config.parity_limits import DEFAULTS, QUANTILE, ParityLimits, limits_of
from igrpo_mcore.config.schema import DType, ParityConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.policy import parity
from igrpo_mcore.types import TrainingSequence

LIMITS = ParityLimits(0.05, 1.0)


def measured(diffs: list[np.ndarray]) -> parity.Parity:
    batch = [TrainingSequence((1,), tuple(range(len(d))), tuple(np.zeros(len(d)))) for d in diffs]
    return parity.compare([batch], [{i: torch.tensor(d) for i, d in enumerate(diffs)}])


@pytest.mark.parametrize("tokens", [1, 7, 999, 1000, 1001, 25_000])
def test_mean_quantile_and_maximum(tokens):
    rng = np.random.default_rng(tokens)
    diffs = np.array_split(rng.normal(size=tokens), min(tokens, 9))
    found = measured(diffs)
    flat = np.abs(np.concatenate(diffs))
    assert found.mean_abs_diff == pytest.approx(flat.mean())
    assert found.max_abs_diff == pytest.approx(flat.max())
    assert found.quantile_abs_diff == pytest.approx(np.quantile(flat, QUANTILE, method="inverted_cdf"))
    assert found.first_token_diff == pytest.approx(max(abs(d[0]) for d in diffs))


def test_one_wild_token_of_many_does_not_end_a_run_and_many_do():
    diffs = np.full(4000, 0.01)
    diffs[17] = 30.0
    found = measured([diffs])
    assert found.max_abs_diff == 30
    assert found.within(LIMITS)
    diffs[100:110] = 30.0
    assert not measured([diffs]).within(LIMITS)


def test_a_small_difference_everywhere_does():
    assert not measured([np.full(4000, 0.06)]).within(LIMITS)


def test_nan_never_passes():
    diffs = np.zeros(4000)
    diffs[5] = np.nan
    assert not measured([diffs]).within(LIMITS)


def test_a_sample_is_spread_over_the_batch_and_depends_on_seed_and_step():
    batch = [TrainingSequence((i,), (1,)) for i in range(103)]

    def drawn(seed: int, step: int) -> list[int]:
        (some,) = parity.sample([batch], 10, seed, step)
        return [s.prompt_ids[0] for s in some]

    first = drawn(3, 7)
    assert first == drawn(3, 7)
    assert len({tuple(drawn(seed, step)) for seed in (3, 4) for step in (7, 8)}) == 4
    assert [i * 10 // 103 for i in first] == list(range(10))  # one of each tenth
    assert {i for step in range(300) for i in drawn(0, step)} == set(range(103))
    for count in (None, 103, 500):
        assert parity.sample([batch], count, 3, 7) == [batch]
    elsewhere = [replace(s, sampled_here=s.prompt_ids[0] % 2 == 0) for s in batch]
    assert {s.prompt_ids[0] % 2 for s in parity.sample([elsewhere], 10, 3, 7)[0]} == {0}


def test_limits_by_dtype_device_and_recipe():
    for (dtype, on_gpu), limits in DEFAULTS.items():
        assert limits_of(ParityConfig(), dtype, on_gpu) == limits
    chosen = limits_of(ParityConfig(mean_threshold=0.5), DType.float32, False)
    assert chosen == ParityLimits(0.5, DEFAULTS[DType.float32, False].quantile)


@pytest.mark.parametrize(
    ("first", "suspects", "said"),
    [
        (2.0, ["model.norm.weight"], "these weights differ between trainer and sampler: model.norm.weight"),
        (2.0, [], "points at the temperature"),
        (0.0, [], "state carried between tokens"),
    ],
)
def test_what_a_refusal_says(first, suspects, said):
    found = parity.Parity(2.0, 0.3, 1.5, 4, first)
    with pytest.raises(UserError, match="by up to 2 ") as caught:
        parity.refuse(found, LIMITS, suspects)
    assert said in str(caught.value)
