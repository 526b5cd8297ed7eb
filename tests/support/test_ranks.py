"""Forked ranks are ranks: their environment, their ends, and nothing is left of them."""

import re

import psutil
import pytest

from tests.support.ranks import run_ranks

WORKER = "tests.support.small_worker"


def processes(text: str) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if text in " ".join(p.info["cmdline"] or [])]


def test_ranks_have_a_rank_s_environment_and_neighbours_hash_differently(monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    for nproc in (1, 3):
        said = run_ranks(WORKER, nproc, "end")
        ranks = re.findall(r"rank (\d) of (.*) hashes to (-?\d+)", said)
        assert sorted(int(rank) for rank, _, _ in ranks) == list(range(nproc))
        for rank, environment, _ in ranks:
            assert environment == str({"WORLD_SIZE": str(nproc), "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"})
        hashes = {int(rank): number for rank, _, number in ranks}
        if nproc == 3:
            assert hashes[0] != hashes[1] != hashes[2]


def test_a_rank_that_fails_ends_the_others_and_is_heard():
    with pytest.raises(AssertionError, match="ended with 1") as failure:
        run_ranks(WORKER, 3, "fail")
    assert "RuntimeError: rank 1 cannot go on" in str(failure.value)


def test_a_worker_that_cannot_be_imported_is_heard_and_the_next_launch_is_served():
    with pytest.raises(AssertionError, match=r"No module named 'tests\.support\.no_worker'"):
        run_ranks("tests.support.no_worker", 2)
    assert run_ranks(WORKER, 2, "end").count("hashes to") == 2


def test_ranks_out_of_time_are_ended_with_what_they_started():
    with pytest.raises(AssertionError, match="ended with out of time"):
        run_ranks(WORKER, 2, "hang", timeout_s=3)
    _, alive = psutil.wait_procs(processes("sleep 1234.5"), timeout=20)
    assert alive == []
