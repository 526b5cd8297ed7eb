"""Running the forms: errors first, then time and memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from igrpo_kernels.bench.forms import Form
from igrpo_kernels.bench.measure import head_product_seconds, seconds, wall_seconds
from igrpo_kernels.bench.problem import SEQUENCES, Problem, errors, exact, make_problem
from igrpo_kernels.memory import peak_extra_bytes
from igrpo_kernels.objective import Objective


@dataclass
class Errors:
    """Against fp64, relative."""

    form: str
    loss: float
    gradient: float
    first_call_s: float
    """Wall clock of the first forward + backward at this shape: with the compilation, where there is one."""


@dataclass
class Result:
    form: str
    tokens: int
    vocabulary: int
    forward_s: float
    forward_backward_s: float
    peak_bytes: int
    """Held at once beyond the inputs during forward + backward; to the logits forms the logits are one."""
    bytes_moved: int
    """The bound of forward + backward: the logits read twice and written once."""
    copy_share: float
    """bytes_moved / forward_backward_s over the measured copy bandwidth."""
    products_share: float | None = None
    """Linear forms: the time of the head's three matrix products over forward_backward_s."""


@dataclass
class OutOfMemory:
    form: str
    tokens: int
    vocabulary: int


Outcome = Errors | Result | OutOfMemory


class _Produced(torch.autograd.Function):
    """Gives a buffer as the output of an operation, as a head would: its gradient may be written over it."""

    @staticmethod
    def forward(ctx: Any, source: torch.Tensor, buffer: list[torch.Tensor]) -> torch.Tensor:
        # a tensor of its own over the same memory: not a view, and the buffer gets no history
        given = buffer[0]
        return given.new_empty(0).set_(given.untyped_storage(), 0, given.shape, given.stride())

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:  # type: ignore[override]
        _Produced.last = grad
        return None, None

    last: torch.Tensor | None = None


class LogitsRun:
    """One form on logits of [T, V]; the buffer is restored before every call, outside the clock."""

    def __init__(self, form: Form, logits_TV: torch.Tensor, problem: Problem) -> None:
        self.form, self.problem, self.logits_TV = form, problem, logits_TV
        self.buffer = torch.empty_like(logits_TV)
        if form.extra_row:
            T, V = logits_TV.shape
            self.buffer = logits_TV.new_empty(SEQUENCES, T // SEQUENCES + 1, V)
        self.source = torch.zeros((), device=logits_TV.device, requires_grad=True)
        self.prepare()

    def prepare(self) -> None:
        self._tokens(self.buffer).copy_(self.logits_TV.view_as(self._tokens(self.buffer)))

    def forward(self) -> torch.Tensor:
        return self.form.loss(_Produced.apply(self.source, [self.buffer]), self.problem)

    def forward_backward(self) -> torch.Tensor:
        loss = self.forward()
        loss.backward()
        return loss

    def errors(self) -> Errors:
        outcome = []
        elapsed = wall_seconds(lambda: outcome.append(self.forward_backward()), self.logits_TV.device.type)
        assert _Produced.last is not None
        grad_TV = self._tokens(_Produced.last).reshape(self.logits_TV.shape)
        _Produced.last = None
        return Errors(
            self.form.name,
            **errors(self.logits_TV, self.problem, outcome[0], grad_TV),
            first_call_s=elapsed,
        )

    def result(self, bandwidth: float, repeats: int) -> Result:
        device = self.logits_TV.device.type
        forward = seconds(self.forward, device, repeats, self.prepare)
        both = seconds(self.forward_backward, device, repeats, self.prepare)
        _Produced.last = None
        self.prepare()
        peak = peak_extra_bytes(self.forward_backward, device)
        _Produced.last = None
        T, V = self.logits_TV.shape
        moved = 3 * self.logits_TV.nbytes
        return Result(self.form.name, T, V, forward, both, peak, moved, moved / both / bandwidth)

    def _tokens(self, buffer: torch.Tensor) -> torch.Tensor:
        return buffer[:, :-1] if self.form.extra_row else buffer


class LinearRun:
    """One form on hidden states and a head."""

    def __init__(self, form: Form, hidden_TH: torch.Tensor, head_VH: torch.Tensor, problem: Problem) -> None:
        self.form, self.problem = form, problem
        self.hidden_TH = hidden_TH.detach().requires_grad_()
        self.head_VH = head_VH.detach().requires_grad_()

    def forward(self) -> torch.Tensor:
        return self.form.loss(self.hidden_TH, self.head_VH, self.problem)

    def forward_backward(self) -> torch.Tensor:
        self.hidden_TH.grad = self.head_VH.grad = None
        loss = self.forward()
        loss.backward()
        return loss

    def errors(self, exact: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> Errors:
        """``exact``: loss, gradient of the hidden states and of the head in fp64."""
        outcome = []
        elapsed = wall_seconds(lambda: outcome.append(self.forward_backward()), self.hidden_TH.device.type)
        worst = 0.0
        for x, wanted in zip((self.hidden_TH, self.head_VH), exact[1:], strict=True):
            assert x.grad is not None
            worst = max(worst, float((x.grad.double() - wanted).norm() / wanted.norm()))
        loss = float((outcome[0].detach().double() - exact[0]).abs() / exact[0].abs())
        return Errors(self.form.name, loss, worst, elapsed)

    def result(self, bandwidth: float, products_s: float, repeats: int) -> Result:
        device = self.hidden_TH.device.type
        with torch.no_grad():
            forward = seconds(self.forward, device, repeats)
        both = seconds(self.forward_backward, device, repeats)
        self.hidden_TH.grad = self.head_VH.grad = None
        peak = peak_extra_bytes(self.forward_backward, device)
        self.hidden_TH.grad = self.head_VH.grad = None
        T, V = self.hidden_TH.shape[0], self.head_VH.shape[0]
        moved = 3 * T * V * self.hidden_TH.element_size()
        return Result(
            self.form.name, T, V, forward, both, peak, moved, moved / both / bandwidth, products_s / both
        )


def exact_linear(
    hidden_TH: torch.Tensor, head_VH: torch.Tensor, problem: Problem, logits_TV: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss and both gradients in fp64, from the logits as their dtype rounds them; a few rows at a time."""
    loss = torch.zeros((), dtype=torch.float64, device=hidden_TH.device)
    grad_hidden = torch.empty(hidden_TH.shape, dtype=torch.float64, device=hidden_TH.device)
    grad_head = torch.zeros(head_VH.shape, dtype=torch.float64, device=hidden_TH.device)
    head = head_VH.double()
    for rows, loss_rows, grad_rows in exact(logits_TV, problem):
        loss += loss_rows
        grad_hidden[rows] = grad_rows @ head
        grad_head.addmm_(grad_rows.T, hidden_TH[rows].double())
    return loss, grad_hidden, grad_head


@dataclass
class Sweep:
    """What all runs of a sweep share."""

    objective: Objective
    dtype: torch.dtype
    device: str
    bandwidth: float
    """Bytes a second of a plain copy."""
    repeats: int
    say: Callable[[Outcome], None]
    """Called with each outcome as it is there: the errors of all forms come before any time."""

    def logits(self, forms: list[Form], shapes: list[tuple[int, int]]) -> None:
        """The errors of all forms at the first shape, then the results at every shape."""
        for index, (T, V) in enumerate(shapes):
            logits_TV = torch.randn(T, V, device=self.device).to(self.dtype)
            problem = make_problem(logits_TV, self.objective)
            for form in forms if index == 0 else []:
                self.say(LogitsRun(form, logits_TV, problem).errors())
            for form in forms:
                self.say(self._result(form, logits_TV, problem))

    def _result(self, form: Form, logits_TV: torch.Tensor, problem: Problem) -> Outcome:
        """The largest shapes are beyond what some forms can hold; that is a finding, not a failure."""
        try:
            return LogitsRun(form, logits_TV, problem).result(self.bandwidth, self.repeats)
        except torch.OutOfMemoryError:
            _Produced.last = None
            return OutOfMemory(form.name, *logits_TV.shape)

    def linear(self, forms: list[Form], T: int, V: int, H: int, chunk_tokens: int) -> None:
        hidden_TH = torch.randn(T, H, device=self.device).to(self.dtype)
        head_VH = (torch.randn(V, H, device=self.device) * H**-0.5).to(self.dtype)
        logits_TV = hidden_TH @ head_VH.T
        problem = make_problem(logits_TV, self.objective)
        wanted = exact_linear(hidden_TH, head_VH, problem, logits_TV)
        del logits_TV
        runs = [LinearRun(form, hidden_TH, head_VH, problem) for form in forms]
        for run in runs:
            self.say(run.errors(wanted))
        del wanted
        products_s = head_product_seconds(T, V, H, chunk_tokens, self.dtype, self.device, self.repeats)
        for run in runs:
            self.say(run.result(self.bandwidth, products_s, self.repeats))
