"""The only file that knows that there may be no CUDA.

With CUDA every function here is the plain torch.cuda call and the shims are no-ops. Without it,
``megatron_on_cpu()`` lets Megatron-Core 0.19 run over gloo: it asks for CUDA devices, streams and
RNG states in a handful of places (each override below was found by leaving it out and running).
"""

import contextlib
import logging
import os
import resource
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from igrpo_mcore.errors import UserError

_CPU = torch.device("cpu")


def has_cuda() -> bool:
    return torch.cuda.is_available()


def backend() -> str:
    """torch.distributed backend: NCCL where there is CUDA, gloo elsewhere."""
    return "nccl" if has_cuda() else "gloo"


def current_device() -> torch.device:
    """The device of this rank."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if has_cuda() else _CPU


def bind_local_rank() -> None:
    """Make this rank's GPU the current one. Its CPU threads: ``igrpo_mcore.rank_environment``.

    A launcher may show each rank its own GPU alone, as ordinal 0; LOCAL_RANK, which vLLM reads as an
    ordinal too, then becomes 0.

    Raises:
        UserError: this node shows several GPUs, but none for this rank.
    """
    if has_cuda():
        rank, visible = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if visible == 1:
            os.environ["LOCAL_RANK"] = "0"
        elif rank >= visible:
            raise UserError(
                f"LOCAL_RANK={rank} has no GPU: {visible} are visible; start at most {visible} ranks a node, "
                "or show each rank its own (CUDA_VISIBLE_DEVICES)"
            )
        torch.cuda.set_device(current_device())


def synchronize() -> None:
    if has_cuda():
        torch.cuda.synchronize()


def empty_cache() -> None:
    if has_cuda():
        torch.cuda.empty_cache()


def free_bytes() -> int | None:
    """What this rank's GPU can still give, with what torch's allocator keeps unused; None without CUDA."""
    if not has_cuda():
        return None
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def resident_gib() -> float:
    """Peak resident set of this process, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # ru_maxrss is in KiB


def take_peak_bytes() -> int | None:
    """The most allocated on this rank's GPU since the last call; None without CUDA."""
    if not has_cuda():
        return None
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak


def used_bytes() -> int | None:
    """In use on this rank's GPU now, by whatever process, as the driver counts; None without CUDA.

    ``take_peak_bytes`` goes on counting what vLLM's sleep has unmapped, and knows nothing of NCCL's
    buffers or of torch's cache.
    """
    if not has_cuda():
        return None
    free, total = torch.cuda.mem_get_info()
    return total - free


def pinned_like(tensor: torch.Tensor) -> torch.Tensor:
    """Host memory of the tensor's shape and type; page-locked with CUDA, so that copies run by DMA."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=_CPU, pin_memory=has_cuda())


class Stopwatch:
    """Seconds of the device's work inside ``with stopwatch:``, added up.

    With CUDA by events in the current stream, since waiting for NCCL there holds up the stream and not
    the host; nothing waits before ``seconds`` is read.
    """

    def __init__(self) -> None:
        self._spans: list[tuple[Any, Any]] = []
        self._start: Any = None

    def __enter__(self) -> None:
        self._start = self._now()

    def __exit__(self, *error: object) -> None:
        self._spans.append((self._start, self._now()))

    @staticmethod
    def _now() -> Any:
        if not has_cuda():
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @property
    def seconds(self) -> float:
        if not has_cuda():
            return sum(stop - start for start, stop in self._spans)
        synchronize()
        return sum(start.elapsed_time(stop) for start, stop in self._spans) / 1e3


def gpu_name() -> str | None:
    """What the driver calls this rank's GPU; None without CUDA."""
    return torch.cuda.get_device_name() if has_cuda() else None


def _onednn_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor | None:
    """``a @ b`` of fp32 matrices by oneDNN, as vLLM's CPU build multiplies; None where it does not apply.

    torch takes MKL there, which stays on AVX2 on other makers' CPUs: docs/performance.md.
    """
    differentiated = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
    fits = a.dtype == b.dtype == torch.float32 and a.dim() >= 2 and b.dim() == 2
    if (
        differentiated
        or not fits
        or not (a.numel() and b.numel())
        or not torch.backends.mkldnn.is_available()
    ):
        return None
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")


class _MegatronOnCpu(TorchFunctionMode):
    """device="cuda" arguments, ``.cuda()``, CUDA type strings and pinned memory, on the CPU; and the products
    of Megatron's linear layers, which are autograd functions of its own, by ``_onednn_matmul``."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.cuda:
            return args[0]
        if func in (torch.matmul, torch.Tensor.matmul) and not kwargs:
            product = _onednn_matmul(*args)
            return func(*args) if product is None else product
        if func is torch.Tensor.type and len(args) == 1 and not kwargs:
            # DDP and the optimizer group buffers by the strings torch.cuda.*Tensor
            return func(*args).replace("torch.", "torch.cuda.", 1)
        if kwargs.get("pin_memory"):
            kwargs = {k: v for k, v in kwargs.items() if k != "pin_memory"}
        if str(kwargs.get("device", "")).startswith("cuda"):
            kwargs = dict(kwargs, device=_CPU)
        return func(*args, **kwargs)


class _NullStream:
    """Stands for a CUDA stream and its events: everything is already in order on a CPU."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __getattr__(self, name: str):
        return lambda *args, **kwargs: self

    def __enter__(self):
        return self

    def __exit__(self, *exc) -> None:
        return None


class CpuFusedAdam(torch.optim.Optimizer):
    """AdamW with the state layout of TE's and Apex's FusedAdam (``step`` in the group, not the state).

    Megatron's distributed optimizer is written against that layout.
    """

    def __init__(
        self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, adam_w_mode=True, **_: Any
    ):
        if not adam_w_mode:
            raise ValueError("CpuFusedAdam decouples weight decay; adam_w_mode=False is not supported")
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        from torch.optim._functional import adamw

        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            group["step"] = group.get("step", 0) + 1
            for p in params:
                if not self.state[p]:
                    self.state[p] = dict(exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
            if not params:
                continue
            adamw(
                params,
                [p.grad for p in params],
                [self.state[p]["exp_avg"] for p in params],
                [self.state[p]["exp_avg_sq"] for p in params],
                [],
                [torch.tensor(float(group["step"] - 1)) for _ in params],
                foreach=False,
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )


_prepared = False


def _prepare_cpu() -> None:
    global _prepared
    if _prepared:
        return
    _prepared = True
    import megatron.core.optimizer as optimizer
    import megatron.core.optimizer.distrib_optimizer as distributed_optimizer
    from megatron.core.tensor_parallel import random as megatron_random
    from megatron.core.tensor_parallel.layers import LinearWithGradAccumulationAndAsyncCommunication as Linear

    backward = Linear.backward

    def backward_on_cpu(ctx: Any, grad_output: torch.Tensor) -> Any:
        with _MegatronOnCpu():  # autograd calls a backward outside of the mode that its forward was in
            return backward(ctx, grad_output)

    Linear.backward = staticmethod(backward_on_cpu)
    torch.cuda.current_device = lambda: _CPU  # type: ignore[assignment,return-value]
    torch.cuda.synchronize = lambda *a, **k: None  # type: ignore[assignment]
    torch.cuda.get_rng_state = lambda *a, **k: torch.get_rng_state()  # type: ignore[assignment]
    torch.cuda.manual_seed = lambda seed: torch.manual_seed(seed)  # type: ignore[assignment,misc]
    torch.cuda.current_stream = lambda *a, **k: _NullStream()  # type: ignore[assignment,return-value]
    torch.cuda.stream = lambda stream: contextlib.nullcontext()  # type: ignore[assignment,misc,return-value]
    torch.cuda.Stream = _NullStream  # type: ignore[assignment,misc]
    megatron_random._get_cuda_rng_state = lambda *a, **k: torch.get_rng_state()
    megatron_random._set_cuda_rng_state = lambda state, *a, **k: torch.set_rng_state(state)
    logging.getLogger(megatron_random.__name__).setLevel(logging.ERROR)
    optimizer.Adam = distributed_optimizer.Adam = CpuFusedAdam
    optimizer.USING_PYTORCH_OPTIMIZER = False
    distributed_optimizer.HAVE_APEX_OR_TE = distributed_optimizer.USING_APEX_OPTIMIZER = True


@contextlib.contextmanager
def megatron_on_cpu() -> Iterator[None]:
    """Inside, Megatron-Core runs on this machine's device; does nothing where there is CUDA.

    vLLM's calls stay outside, so that it sees an unaltered torch function table.
    """
    if has_cuda():
        yield
        return
    _prepare_cpu()
    with _MegatronOnCpu():
        yield
