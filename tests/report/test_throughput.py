"""Rates of a step by hand, and the spread over ranks."""

import pytest

from igrpo_mcore import device
from igrpo_mcore.config.schema import DType
from igrpo_mcore.policy.update_stats import UpdateStats
from igrpo_mcore.report.throughput import throughput
from igrpo_mcore.run import rank_spread
from igrpo_mcore.run.phases import Phases

UPDATES = [UpdateStats(0.0, 0.0, 0.0, tokens, 2 * tokens, 0, 10**15, {}) for tokens in (300, 500)]
SECONDS = {"step": 20.0, "update": 4.0}


def test_rates_are_of_one_gpu_and_the_peak_is_the_gpus() -> None:
    found = throughput(4000, UPDATES, SECONDS, 2, "NVIDIA H100 80GB HBM3", DType.bfloat16)
    assert found == pytest.approx(
        {
            "tokens_per_s/sampled_per_gpu": 4000 / 20 / 2,
            "tokens_per_s/trained_per_gpu": 800 / 20 / 2,
            "time/update_tflops_per_gpu": 2e15 / 4 / 2 / 1e12,
            "time/update_mfu": 250 / 989,
            "time/step_mfu": 50 / 989,
        }
    )


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(None, DType.bfloat16), ("NVIDIA L4", DType.bfloat16), ("NVIDIA H100 80GB HBM3", DType.float32)],
)
def test_without_a_known_peak_there_is_no_mfu(name: str | None, dtype: DType) -> None:
    found = throughput(4000, UPDATES, SECONDS, 2, name, dtype)
    assert found["time/update_mfu"] is None
    assert found["time/step_mfu"] is None
    assert found["time/update_tflops_per_gpu"] == pytest.approx(250)


def test_the_spread_is_over_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    phases = Phases()
    phases.seconds, phases.peak_bytes = {"engine": 3.0}, {"step": 2**31}
    monkeypatch.setattr(device, "resident_gib", lambda: 5.0)
    other = {"memory/rss": 7.0, "time/engine": 9.0, "memory/step": 1.0}
    monkeypatch.setattr(rank_spread, "gather_objects", lambda mine: [mine, other])
    assert rank_spread.rank_spread(phases) == {
        "memory/rss_max_gib": 7.0,
        "memory/rss_min_gib": 5.0,
        "time/engine_max_s": 9.0,
        "time/engine_min_s": 3.0,
        "memory/step_max_gib": 2.0,
        "memory/step_min_gib": 1.0,
    }
