"""What a step's updates become in metrics.jsonl."""

import pytest

from igrpo_mcore.config.schema import Config
from igrpo_mcore.policy.policy import UpdateStats
from igrpo_mcore.report.step_metrics import step_metrics
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.rollout.sampler import StepSamples
from igrpo_mcore.run.phases import Phases
from igrpo_mcore.weights.push import PushStats
from tests.support.rollouts import random_rollouts


def update(loss: float, low: float, high: float, tokens: int, head_rows: int) -> UpdateStats:
    means = {"clip_fraction_low": low, "clip_fraction_high": high, "kl": 0.5 * loss, "entropy": 2 * loss}
    return UpdateStats(loss, 3 * loss, 1e-3 * loss, tokens, 400, head_rows, 10**9, means)


def test_updates_are_averaged_and_their_tokens_added_up() -> None:
    phases = Phases()
    phases.seconds = {"update": 2.0, "step": 5.0}
    updates = [update(1.0, 0.1, 0.0, 100, 30), update(3.0, 0.2, 0.3, 300, 50)]
    pushed = PushStats(0, 0, 0, 0, 0.0, 0.0, 0.0)
    samples = StepSamples(random_rollouts(0), [], {}, drawn=5)
    metrics = step_metrics(samples, None, None, updates, pushed, phases, Config(), RewardOptions())
    expected = {
        "policy/loss": 2.0,
        "policy/grad_norm": 6.0,
        "policy/kl": 1.0,
        "policy/entropy": 4.0,
        "policy/clip_fraction": 0.3,
        "policy/lr": 3e-3,  # the last one's
        "policy/head_rows_share": 80 / 400,
        "policy/trained_share": 400 / 800,
        "tokens_per_s/update": 200.0,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert metrics["parity/logprob_max_abs_diff"] is None
