"""The published formulae in fp64, dense, through autograd: what the kernels are compared with.

Written from the papers with log_softmax over the whole vocabulary; shares no code with igrpo_kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from igrpo_kernels import Objective, policy_loss
from torch.nn.functional import log_softmax

# where a GPU is, the same tests run the compiled kernels
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


@dataclass
class Case:
    """One call of policy_loss; logits hold the whole vocabulary, padding included."""

    logits_TV: torch.Tensor
    target_T: torch.Tensor
    old_logprob_T: torch.Tensor | None
    advantage_T: torch.Tensor
    weight_T: torch.Tensor
    ref_logprob_T: torch.Tensor | None
    importance_T: torch.Tensor | None
    sequence_id_T: torch.Tensor | None
    valid_vocab: int | None = None

    def tokens(self) -> dict[str, torch.Tensor | None]:
        names = ("old_logprob_T", "advantage_T", "weight_T", "ref_logprob_T", "importance_T", "sequence_id_T")
        return {name: getattr(self, name) for name in names}

    def to(self, device: str) -> Case:
        tensors = {f.name: x for f in fields(self) if isinstance(x := getattr(self, f.name), torch.Tensor)}
        return replace(self, **{name: x.to(device) for name, x in tensors.items()})


def make_case(
    T: int,
    V: int,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    sequences: int = 4,
    scale: float = 3.0,
    shift: float = 0.0,
    temperature: float = 1.0,
    reference: bool = True,
    importance: bool = False,
    on_policy: bool = False,
    zero_weight: float = 0.0,
) -> Case:
    """Random logits; old and reference log-probs around the policy's own, so that some ratios are clipped."""
    gen = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=gen)

    logits_TV = (randn(T, V) * scale + shift).to(dtype)
    target_T = torch.randint(0, V, (T,), generator=gen)
    logp = log_softmax(logits_TV.double() / temperature, -1).gather(1, target_T[:, None])[:, 0].float()
    sequence_id_T = torch.arange(T) * sequences // max(T, 1)
    weight_T = (torch.rand(T, generator=gen) + 0.5) / max(T, 1)
    weight_T[torch.rand(T, generator=gen) < zero_weight] = 0
    return Case(
        logits_TV,
        target_T,
        None if on_policy else logp + 0.3 * randn(T),
        randn(sequences)[sequence_id_T] if T else randn(0),
        weight_T,
        logp + 0.3 * randn(T) if reference else None,
        torch.rand(T, generator=gen) * 2 if importance else None,
        sequence_id_T,
    )


@dataclass
class Expected:
    loss: torch.Tensor
    size: torch.Tensor
    """Σ |weight · loss of the token|: what an error of the loss is relative to, the terms may cancel."""
    grad_TV: torch.Tensor
    metrics: dict[str, torch.Tensor]


def expected(case: Case, objective: Objective, grad_output: float = 1.0) -> Expected:
    """Loss, gradient to the logits and metrics, fp64. Rows of zero weight are cut out before anything."""
    keep = case.weight_T != 0
    V = case.logits_TV.shape[1] if case.valid_vocab is None else case.valid_vocab
    x = case.logits_TV[keep, :V].double().requires_grad_()
    loss_T, metrics = dense_loss(x, case, objective, keep)
    loss = loss_T.sum()
    grad_TV = torch.zeros(case.logits_TV.shape, dtype=torch.float64)
    rows = torch.zeros(len(x), case.logits_TV.shape[1], dtype=torch.float64)
    rows[:, :V] = torch.autograd.grad(loss * grad_output, x)[0]
    grad_TV[keep] = rows
    return Expected(loss.detach(), loss_T.detach().abs().sum(), grad_TV, metrics)


def dense_loss(
    x: torch.Tensor, case: Case, objective: Objective, keep: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The published objectives on logits x [kept rows, V] in fp64: weighted loss of each row, metrics."""

    def kept(t: torch.Tensor | None, default: torch.Tensor) -> torch.Tensor:
        return default if t is None else t[keep].double()

    # a logit of -inf has probability 0; log_softmax's own gradient of p log p would be NaN there
    log_p = log_softmax(x.clamp(min=-1e30) / objective.temperature, -1)
    logp = log_p.gather(1, case.target_T[keep][:, None])[:, 0]
    entropy = -(log_p.exp() * log_p).sum(-1)
    old = kept(case.old_logprob_T, logp.detach())
    A, weight = kept(case.advantage_T, logp), kept(case.weight_T, logp)
    importance = kept(case.importance_T, torch.ones_like(logp))
    low = -torch.inf if objective.clip_low is None else 1 - objective.clip_low
    high = 1 + objective.clip_high

    ratio = torch.exp(logp - old)
    if objective.kind == "gspo":  # s_i(θ) = (π_θ(y_i|x) / π_old(y_i|x))^(1/|y_i|)
        ids = case.sequence_id_T[keep]
        ratio = torch.stack([torch.exp((logp - old)[ids == i].mean()) for i in ids])
    if objective.kind == "reinforce":
        surrogate = A * logp
    elif objective.kind == "cispo":
        surrogate = ratio.clamp(low, high).detach() * A * logp
    else:
        surrogate = torch.minimum(ratio * A, ratio.clamp(low, high) * A)
        if objective.dual_clip is not None:
            surrogate = torch.where(A < 0, torch.maximum(surrogate, objective.dual_clip * A), surrogate)
    loss_T = -importance * surrogate - objective.entropy_coef * entropy

    k3 = torch.zeros_like(logp)
    if case.ref_logprob_T is not None:
        ref = kept(case.ref_logprob_T, logp)
        rho = torch.exp(ref - logp)
        k3 = rho - torch.log(rho) - 1
        kl = {"k1": logp - ref, "k2": (logp - ref) ** 2 / 2, "k3": k3}[objective.kl_kind]
        loss_T = loss_T + objective.kl_coef * kl

    below, above = ratio < low, ratio > high
    if objective.kind in ("clip", "gspo"):
        below, above = below & (A < 0), above & (A > 0)
    if objective.kind == "reinforce":
        below = above = torch.zeros_like(below)
    metrics = {
        "tokens": torch.tensor(float(len(logp))),
        "clip_fraction_low": below.double().mean(),
        "clip_fraction_high": above.double().mean(),
        "kl": k3.mean(),
        "neg_log_ratio": (old - logp).mean(),
        "entropy": entropy.mean(),
        "ratio_min": ratio.min(),
        "ratio_max": ratio.max(),
    }
    return weight * loss_T, {name: value.detach() for name, value in metrics.items()}


def relative(actual: torch.Tensor, wanted: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is wanted."""
    actual, wanted = actual.detach().double(), wanted.detach().double()
    return float((actual - wanted).norm() / wanted.norm().clamp(min=1e-30))


def assert_matches(
    case: Case, objective: Objective, *, grad_output: float = 1.0, tolerance: float = 0.0
) -> None:
    """policy_loss on the case, in the logits' own dtype, against the fp64 formula."""
    tolerance = tolerance or TOLERANCE[case.logits_TV.dtype]
    wanted = expected(case, objective, grad_output)
    on_device = case.to(DEVICE)
    leaf = on_device.logits_TV.clone().requires_grad_()
    # times one: a buffer that may take the gradient
    result = policy_loss(
        leaf * 1,
        on_device.target_T,
        objective=objective,
        valid_vocab=case.valid_vocab,
        **on_device.tokens(),
    )
    (result.loss * grad_output).backward()
    loss = result.loss.detach().cpu()
    assert abs(loss - wanted.loss) <= tolerance * wanted.size, (loss, wanted.loss)
    assert relative(leaf.grad.cpu(), wanted.grad_TV) <= tolerance
    for name, value in wanted.metrics.items():
        actual = result.metrics[name].cpu()
        assert abs(actual - value) <= tolerance * max(1.0, abs(value)), (name, actual, value)
