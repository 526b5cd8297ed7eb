import pytest

from tests.support.ranks import run_ranks


@pytest.mark.slow
def test_a_vocabulary_over_1_2_and_4_ranks_equals_fp64() -> None:
    assert "ALL WELL" in run_ranks("tests.kernels.tensor_parallel_worker", 4, 1e-5)
