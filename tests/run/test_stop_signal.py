"""Stopping on request: the launcher ends every rank as soon as one has left."""

import pytest

from igrpo_mcore.run.stop_signal import REQUEUE_STATUS
from tests.support.ranks import run_ranks


def test_no_rank_leaves_before_rank_0_has_written_and_said_everything():
    with pytest.raises(AssertionError, match=f"ended with {REQUEUE_STATUS}") as ended:
        run_ranks("tests.run.stop_worker", 2)
    assert "the page is written" in str(ended.value)
    assert "igrpo: stopped on request after step 3; the same command goes on from there" in str(ended.value)
