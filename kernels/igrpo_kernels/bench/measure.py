"""Clocks: medians of repeated calls, the machine's copy bandwidth and matrix-product time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def seconds(
    call: Callable[[], object], device: str, repeats: int, prepare: Callable[[], object] | None = None
) -> float:
    """Median time of ``call`` after one warm-up; ``prepare`` runs before each call, outside the clock."""
    times = []
    # written before each call, so that none finds its input in a GPU's L2
    flush = torch.empty(2**28 if device == "cuda" else 0, dtype=torch.uint8, device=device)
    for _ in range(repeats + 1):
        if prepare is not None:
            prepare()
        flush.zero_()
        times.append(once(call, device))
    return statistics.median(times[1:])


def once(call: Callable[[], object], device: str) -> float:
    """Time of one call: on the GPU's own clock, or a CPU's processor time by threads.

    Processor time, so that other work on the machine counts for less; on a quiet one it is the wall clock's.
    """
    if device != "cuda":
        start = time.process_time()
        call()
        return (time.process_time() - start) / torch.get_num_threads()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


def wall_seconds(call: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def copy_bandwidth(device: str, repeats: int) -> float:
    """Bytes read + written a second by a plain copy of 2 GiB (CPU: 256 MiB), far past any cache."""
    source = torch.zeros((2**31 if device == "cuda" else 2**28) // 4, device=device)
    sink = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: sink.copy_(source), device, repeats)


def head_product_seconds(
    T: int, V: int, H: int, chunk_tokens: int, dtype: torch.dtype, device: str, repeats: int
) -> float:
    """Time of a head's three products on T rows, in chunks: logits and both gradients, 6 T H V FLOP."""
    C = min(chunk_tokens, T)
    hidden_CH = torch.randn(C, H, device=device).to(dtype)
    head_VH = torch.randn(V, H, device=device).to(dtype)
    logits_CV = torch.empty(C, V, dtype=dtype, device=device)
    grad_VH = torch.empty_like(head_VH)

    def products() -> None:
        torch.mm(hidden_CH, head_VH.t(), out=logits_CV)
        torch.mm(logits_CV, head_VH)
        torch.mm(logits_CV.t(), hidden_CH, out=grad_VH)

    return seconds(products, device, repeats) * T / C
