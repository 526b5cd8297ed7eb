"""Phases of a step: nested, repeated, and left by an exception; GPU peaks credited to all that are open."""

import pytest

from igrpo_mcore import device
from igrpo_mcore.run.phases import Phases


def test_seconds_of_nested_and_repeated_phases(monkeypatch):
    clock = iter(range(0, 100, 5))
    monkeypatch.setattr("igrpo_mcore.run.phases.time.perf_counter", lambda: next(clock))
    phases = Phases()
    with phases("outer"):  # 0
        for _ in range(2):
            with phases("inner"):  # 5 to 10, 15 to 20
                pass
    assert phases.seconds == {"outer": 25, "inner": 10}
    assert phases.metrics() == {"time/outer_s": 25, "time/inner_s": 10}
    phases.clear()
    with pytest.raises(ValueError, match="here"), phases("fails"):
        raise ValueError("here")
    assert phases.seconds == {"fails": 5}


def test_peaks_go_to_every_open_phase(monkeypatch):
    peaks = iter([9, 3, 7, 2, 5, 1])  # what was allocated at most since the last look
    monkeypatch.setattr(device, "take_peak_bytes", lambda: next(peaks) * 2**30)
    phases = Phases()
    with phases("outer"):  # 9 came before it
        with phases("first"):  # 3 before, 7 inside
            pass
        with phases("second"):  # 2 before, 5 inside
            pass
    assert {name: peak / 2**30 for name, peak in phases.peak_bytes.items()} == {
        "outer": 7,
        "first": 7,
        "second": 5,
    }
    assert phases.metrics()["memory/outer_gib"] == 7


def test_memory_in_use_goes_to_every_open_phase(monkeypatch):
    used = iter([9, 3, 8, 2])  # where each phase begins and ends
    monkeypatch.setattr(device, "used_bytes", lambda: next(used) * 2**30)
    phases = Phases()
    with phases("outer"), phases("inner"):
        pass
    metrics = phases.metrics()
    assert (metrics["memory/outer_used_gib"], metrics["memory/inner_used_gib"]) == (8, 8)
