"""Plain PyTorch form of every kernel: the path without Triton, and what the kernels are read against.

A row has logits x and the target y; z = x/τ and p = softmax(z) at the temperature τ. Its statistics are kept
relative to the largest raw logit m, so that logits near ±1e4 keep their precision:

    s = Σ e^{z - m/τ},    u = Σ e^{z - m/τ} (z - m/τ).

Then log p_y = (x_y - m)/τ - log s, and the entropy H is log s - u/s. A loss L with g = ∂L/∂log p_y and
h = ∂L/∂H has the gradient

    ∂L/∂x_j = (1/τ) [ g δ_jy - p_j ( g + h ((x_j - m)/τ - u/s) ) ].

Everything is in fp32, or in fp64 for fp64 logits.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from igrpo_kernels.inputs import TokenInputs
from igrpo_kernels.objective import Objective

# The largest raw logit of a row without any: finite, so that x - m is never NaN.
LOWEST = torch.finfo(torch.float32).min
# Differences are clipped here, so that e^d · d is 0 and not NaN at x = -inf.
FARTHEST = -1e30
# Tokens that are summed up at once in the O(T) step.
OBJECTIVE_BLOCK = 1024


def accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def row_stats(
    logits_TV: torch.Tensor,
    target_T: torch.Tensor,
    weight_T: torch.Tensor | None,
    temperature: float,
    vocab_start: int,
    valid_columns: int,
) -> torch.Tensor:
    """[4, T]: m, s, u and x_y of the first ``valid_columns`` columns of a vocabulary shard.

    x_y is -inf where the shard does not hold the target. Rows of zero weight are not read: (0, 1, 0, 0).
    """
    T = logits_TV.shape[0]
    dtype = accumulator(logits_TV.dtype)
    stats_4T = torch.empty(4, T, dtype=dtype, device=logits_TV.device)
    stats_4T.copy_(torch.tensor([[0.0], [1.0], [0.0], [0.0]], dtype=dtype))
    active_T = None if weight_T is None else weight_T != 0
    for rows in _row_blocks(logits_TV, active_T):
        x = logits_TV[rows, :valid_columns].to(dtype)
        y = target_T[rows] - vocab_start
        owned = (y >= 0) & (y < valid_columns)
        if valid_columns:
            x_y = x.gather(1, torch.where(owned, y, 0)[:, None])[:, 0].masked_fill(~owned, -torch.inf)
            m = x.amax(1).clamp(min=LOWEST)
            d = (x - m[:, None]).clamp_(min=FARTHEST).mul_(1 / temperature)
            e = d.exp()
            stats_4T[:, rows] = torch.stack([m, e.sum(1), e.mul_(d).sum(1), x_y])
        else:
            zero = torch.zeros(y.shape, dtype=dtype, device=y.device)
            stats_4T[:, rows] = torch.stack([zero + LOWEST, zero, zero, zero - torch.inf])
    return stats_4T


def merge(stats_W4T: torch.Tensor, temperature: float) -> torch.Tensor:
    """[5, T]: m, log s, u/s, log p_y and entropy, merged over the shards in rank order."""
    m_WT, s_WT, u_WT, x_y_WT = stats_W4T.unbind(1)
    m, x_y = m_WT.amax(0), x_y_WT.amax(0)
    s, u = torch.zeros_like(m), torch.zeros_like(m)
    for m_T, s_T, u_T in zip(m_WT, s_WT, u_WT, strict=True):
        d = (m_T - m).clamp(min=FARTHEST) / temperature
        a = d.exp()
        s = s + a * s_T
        u = u + a * (u_T + s_T * d)
    log_s, mean = s.log(), u / s
    return torch.stack([m, log_s, mean, (x_y - m) / temperature - log_s, log_s - mean])


def logits_grad(
    out_TV: torch.Tensor,
    logits_TV: torch.Tensor,
    target_T: torch.Tensor,
    rows_5T: torch.Tensor,
    grads_2T: torch.Tensor,
    scale: torch.Tensor,
    temperature: float,
    vocab_start: int,
    valid_columns: int,
) -> None:
    """Write scale · ∂L/∂logits into ``out_TV``, which may be ``logits_TV``. ``grads_2T``: g and h.

    Rows with g = h = 0 are not read, and padded columns neither: both get 0.
    """
    dtype = accumulator(logits_TV.dtype)
    g_T, h_T = (grads_2T * scale).to(dtype)
    m_T, log_s_T, mean_T = rows_5T[:3]
    read_T = (grads_2T != 0).any(0)
    if not bool(read_T.all()):
        out_TV[~read_T] = 0
    out_TV[:, valid_columns:] = 0
    for rows in _row_blocks(logits_TV, read_T):
        d = (logits_TV[rows, :valid_columns].to(dtype) - m_T[rows, None]).clamp_(min=FARTHEST)
        d.mul_(1 / temperature)
        p = (d - log_s_T[rows, None]).exp_()
        g, h, y = g_T[rows], h_T[rows], target_T[rows] - vocab_start
        grad = d.sub_(mean_T[rows, None]).mul_(h[:, None]).add_(g[:, None]).mul_(p).neg_()
        owned = (y >= 0) & (y < valid_columns)
        if valid_columns:
            grad.scatter_add_(1, torch.where(owned, y, 0)[:, None], torch.where(owned, g, 0)[:, None])
        out_TV[rows, :valid_columns] = grad.mul_(1 / temperature).to(out_TV.dtype)


def objective_terms(
    rows_5T: torch.Tensor, tokens: TokenInputs, objective: Objective
) -> tuple[torch.Tensor, torch.Tensor]:
    """The step of O(T) work between the two passes over the logits.

    Args:
        rows_5T: what ``merge`` gives.

    Returns:
        [2, T], g and h of every row; [9, N], the sums and extremes of ``SUMMARY`` for each of the N blocks of
        ``OBJECTIVE_BLOCK`` rows. Rows of zero weight count for nothing, whatever they hold.
    """
    logprob_T, entropy_T = rows_5T[3:]
    active_T = tokens.weight_T != 0

    def of_active(x_T: torch.Tensor | None, otherwise: torch.Tensor) -> torch.Tensor:
        return otherwise if x_T is None else torch.where(active_T, x_T.to(logprob_T.dtype), 0)

    zero_T = torch.zeros_like(logprob_T)
    logp, entropy = of_active(logprob_T, zero_T), of_active(entropy_T, zero_T)
    advantage, weight = of_active(tokens.advantage_T, zero_T), tokens.weight_T.to(logp.dtype)
    importance = of_active(tokens.importance_T, zero_T + 1)
    log_ratio = logp - of_active(tokens.old_logprob_T, logp)

    sequences = None
    if objective.kind == "gspo":
        assert tokens.sequence_id_T is not None
        sequences = Sequences(tokens.sequence_id_T, active_T)
        ratio = sequences.mean(log_ratio).exp()
    else:
        ratio = log_ratio.exp()

    # surrogate and its derivative by log π_θ (gspo: by the log of the sequence's ratio)
    low, high = objective.lowest_ratio, 1 + objective.clip_high
    clipped = ratio.clamp(low, high)
    if objective.kind == "reinforce":
        surrogate, slope = advantage * logp, advantage
        is_low = is_high = torch.zeros_like(active_T)
    elif objective.kind == "cispo":
        slope = clipped * advantage
        surrogate = slope * logp
        is_low, is_high = ratio < low, ratio > high
    else:
        # a ratio that overflowed counts for nothing where the advantage is 0
        unclipped = torch.where(advantage == 0, 0, ratio * advantage)
        surrogate = torch.minimum(unclipped, clipped * advantage)
        slope = torch.where(unclipped <= clipped * advantage, unclipped, 0)
        if objective.dual_clip is not None:
            bound = torch.where(advantage < 0, objective.dual_clip * advantage, -torch.inf)
            slope = torch.where(surrogate < bound, 0, slope)
            surrogate = torch.maximum(surrogate, bound)
        is_low, is_high = (ratio < low) & (advantage < 0), (ratio > high) & (advantage > 0)

    loss = -importance * surrogate
    g = -importance * slope * weight
    if sequences is not None:
        g = sequences.mean(g)

    k3 = zero_T
    if tokens.ref_logprob_T is not None:
        delta = of_active(tokens.ref_logprob_T, zero_T) - logp
        k3 = delta.exp() - delta - 1
        if objective.kl_coef != 0:
            kl, slope_kl = {
                "k1": (-delta, zero_T + 1),
                "k2": (delta * delta / 2, -delta),
                "k3": (k3, 1 - delta.exp()),
            }[objective.kl_kind]
            loss = loss + objective.kl_coef * kl
            g = g + objective.kl_coef * slope_kl * weight
    loss = loss - objective.entropy_coef * entropy
    h = -objective.entropy_coef * weight

    sums = [torch.where(active_T, weight * loss, 0), active_T, is_low & active_T, is_high & active_T]
    sums += [k3, -log_ratio, entropy]
    partials = [_blocks(x.to(logp.dtype), 0.0).sum(1) for x in sums]
    partials += [_blocks(torch.where(active_T, ratio, torch.inf), torch.inf).amin(1)]
    partials += [_blocks(torch.where(active_T, ratio, -torch.inf), -torch.inf).amax(1)]
    return torch.stack([torch.where(active_T, g, 0), torch.where(active_T, h, 0)]), torch.stack(partials)


def summarise(partials_9N: torch.Tensor) -> torch.Tensor:
    """[9] in the order of ``SUMMARY``: the loss summed, the count, means over the count, extremes."""
    sums, low, high = partials_9N[:-2].sum(1), partials_9N[-2].amin(), partials_9N[-1].amax()
    count = sums[1].clamp(min=1)
    return torch.cat([sums[:2], sums[2:] / count, torch.stack([low, high])])


def _blocks(x_T: torch.Tensor, fill: float) -> torch.Tensor:
    """[N, OBJECTIVE_BLOCK], filled up; at least one block."""
    N = objective_blocks(x_T.shape[0])
    return F.pad(x_T, (0, N * OBJECTIVE_BLOCK - x_T.shape[0]), value=fill).view(N, OBJECTIVE_BLOCK)


def objective_blocks(T: int) -> int:
    return T // OBJECTIVE_BLOCK + 1


class Sequences:
    """Means over the active rows of each sequence, given to every one of its rows; the same sums in the same
    order from run to run, on any device.

    Ids are any integers; they are renumbered by their order, so that no count has to come to the host.
    """

    def __init__(self, sequence_id_T: torch.Tensor, active_T: torch.Tensor) -> None:
        ordered, order = sequence_id_T.sort(stable=True)
        new = torch.zeros_like(ordered)
        new[1:] = ordered[1:] != ordered[:-1]
        self.index_T = torch.empty_like(order).scatter_(0, order, new.cumsum(0))
        self.count_S = self._sum(active_T.double())

    def mean(self, x_T: torch.Tensor) -> torch.Tensor:
        mean_S = self._sum(x_T.double()) / self.count_S.clamp(min=1)
        return mean_S[self.index_T].to(x_T.dtype)

    def _sum(self, x_T: torch.Tensor) -> torch.Tensor:
        total_S = torch.zeros_like(x_T)
        if x_T.device.type == "cpu":
            return total_S.index_add_(0, self.index_T, x_T)
        # on CUDA index_add_ adds in any order, index_put_ sorts first
        return total_S.index_put_((self.index_T,), x_T, accumulate=True)


def _row_blocks(logits_TV: torch.Tensor, active_T: torch.Tensor | None) -> Iterator[slice | torch.Tensor]:
    """Blocks of the active rows that keep the temporaries small: in a CPU's cache, or 256 MiB elsewhere."""
    T, V = logits_TV.shape
    size = max(1, (2**20 if logits_TV.device.type == "cpu" else 2**26) // max(V, 1))
    if active_T is None or bool(active_T.all()):
        yield from (slice(start, min(start + size, T)) for start in range(0, T, size))
    else:
        yield from active_T.nonzero()[:, 0].split(size) if bool(active_T.any()) else ()
