"""The CPU path's products: by oneDNN where no gradient is kept, equal to fp64's."""

import os
import subprocess
import sys

import pytest
import torch

from igrpo_mcore import device
from igrpo_mcore.errors import UserError
from tests.support.ranks import ROOT


@pytest.mark.parametrize("shape", [(300, 96, 160), (1, 7, 5), (33, 1, 2)])
def test_products_equal_fp64(shape):
    rows, inner, columns = shape
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(rows, inner, generator=generator), torch.randn(columns, inner, generator=generator)
    for left, right in ((a, b.t()), (a.t(), a), (a[:, None], b.t())):
        product = device._onednn_matmul(left, right)
        assert product is not None
        torch.testing.assert_close(product.double(), left.double() @ right.double(), rtol=1e-5, atol=1e-5)


def test_the_mode_takes_what_has_no_gradient_and_leaves_the_rest(monkeypatch):
    taken = []
    onednn = device._onednn_matmul

    def seen(a, b):
        product = onednn(a, b)
        taken.append(product is not None)
        return product

    monkeypatch.setattr(device, "_onednn_matmul", seen)
    a, b = torch.randn(4, 3), torch.randn(3, 5, requires_grad=True)
    with device._MegatronOnCpu():
        with torch.no_grad():
            torch.matmul(a, b)
        loss = a.matmul(b).sum()
        torch.matmul(a.double(), b.double())
        torch.matmul(a[:0], b.detach())
    loss.backward()
    assert taken == [True, False, False, False]
    torch.testing.assert_close(b.grad, a.sum(0)[:, None].expand(3, 5))


def test_linear_layers_multiply_by_onednn_forward_and_backward():
    """In a process of its own: Megatron's patches stay."""
    script = """
import torch
from igrpo_mcore import device
from igrpo_mcore.errors import UserError
taken, onednn = [], device._onednn_matmul
def seen(a, b):
    product = onednn(a, b)
    taken.append(product is not None)
    return product
device._onednn_matmul = seen
from megatron.core.tensor_parallel.layers import linear_with_grad_accumulation_and_async_allreduce as linear
x, w = torch.randn(6, 1, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
torch.distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
group = torch.distributed.group.WORLD
with device.megatron_on_cpu():
    y = linear(x, w, None, gradient_accumulation_fusion=False, allreduce_dgrad=False, sequence_parallel=False,
               tp_group=group)
    y.square().sum().backward()
assert taken == [True] * 3, taken
expected = torch.autograd.grad((x.double() @ w.double().t()).square().sum(), (x, w))
torch.testing.assert_close(x.grad, expected[0], rtol=1e-5, atol=1e-5)
torch.testing.assert_close(w.grad, expected[1], rtol=1e-5, atol=1e-5)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def gpus(monkeypatch):
    """As on a node that shows two GPUs; returns what is asked of torch.cuda."""
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: asked.append("synchronize"))
    return asked


def test_a_rank_takes_the_gpu_of_its_number_or_the_only_one_it_sees(gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    device.bind_local_rank()
    assert gpus == [torch.device("cuda", 1)]
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(UserError, match="LOCAL_RANK=3 has no GPU: 2 are visible"):
        device.bind_local_rank()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    device.bind_local_rank()
    assert gpus[1:] == [torch.device("cuda", 0)]
    assert os.environ["LOCAL_RANK"] == "0"  # vLLM reads it as an ordinal


def test_memory_in_use_is_the_drivers_count(gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (30, 100))
    assert device.used_bytes() == 70


def test_a_stopwatch_adds_spans_by_the_clock(monkeypatch):
    clock = iter([1.0, 3.0, 10.0, 10.5])
    monkeypatch.setattr("igrpo_mcore.device.time.perf_counter", lambda: next(clock))
    watch = device.Stopwatch()
    for _ in range(2):
        with watch:
            pass
    assert watch.seconds == 2.5


def test_with_cuda_a_stopwatch_reads_events_after_the_device_is_done(gpus, monkeypatch):
    class Event:
        made = 0

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            Event.made += 1
            self.at = 250.0 * Event.made**2

        def record(self) -> None:
            gpus.append("record")

        def elapsed_time(self, end: "Event") -> float:
            return end.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    watch = device.Stopwatch()
    for _ in range(2):
        with watch:
            pass
    assert "synchronize" not in gpus  # measuring must not stop the streams that it measures
    assert watch.seconds == (250 * 3 + 250 * 7) / 1e3
    assert gpus == ["record"] * 4 + ["synchronize"]
