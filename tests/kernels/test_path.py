"""The choice between Triton and the reference, and the table of tiles."""

import logging
from collections.abc import Iterator

import pytest
import torch
from igrpo_kernels import path
from igrpo_kernels.configs import tiles


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(path.VARIABLE, raising=False)
    path._decide.cache_clear()
    yield
    path.set_path(None)


def test_cpu_tensors_take_the_reference_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "igrpo_kernels"):
        assert [path.path_of(torch.zeros(1)) for _ in range(2)] == ["reference"] * 2
    assert len(caplog.records) == 1
    assert "reference path" in caplog.text


def test_triton_without_a_gpu_needs_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(path.VARIABLE, "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"):
        path.path_of(torch.zeros(1))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert path.path_of(torch.zeros(1)) == "triton"
    assert path.path_of(torch.zeros(1, dtype=torch.float64)) == "reference"


def test_the_function_goes_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(path.VARIABLE, "triton")
    path.set_path("reference")
    assert path.path_of(torch.zeros(1)) == "reference"
    with pytest.raises(ValueError, match="cuda"):
        path.set_path("cuda")
    path.set_path(None)
    monkeypatch.setenv(path.VARIABLE, "fast")
    with pytest.raises(ValueError, match="IGRPO_KERNELS=fast"):
        path.path_of(torch.zeros(1))


@pytest.mark.parametrize("device", ["cuda", "interpreter"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("columns", [1, 16_384, 19_008, 152_064])
def test_there_is_a_tile_for_every_shard(columns: int, dtype: torch.dtype, device: str) -> None:
    for tile in vars(tiles(columns, dtype, device)).values():
        sizes = (tile.rows, tile.lanes, tile.vector, tile.warps)
        assert all(size & (size - 1) == 0 for size in sizes)
        # a thread's load is 16 bytes, and a GPU's program has lanes for all of its threads
        if device == "cuda":
            assert tile.vector * dtype.itemsize == 16
            assert tile.lanes >= 32 * tile.warps
