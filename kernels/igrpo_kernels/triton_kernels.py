"""The Triton kernels. Each has its plain form, with the same contract, in ``reference``.

The two large kernels walk over a row in tiles [rows, lanes, vector]: on a GPU one row a program, in the
interpreter 64. Every lane keeps its own maximum and sums over its own columns, so that the loop holds no
reduction across threads; ``vector`` is what one thread loads at once, so the reduction over it stays in
registers. The lanes are merged once, in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOWEST = tl.constexpr(-3.4028234663852886e38)
FARTHEST = tl.constexpr(-1e30)
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _fold(x, m, s, u, to_log2):
    """Take logits [R, L, K] into the lanes' m, s and u [R, L]; u is unscaled, Σ e (x - m)."""
    largest = tl.maximum(m, tl.max(x, 2))
    rise = tl.maximum(m - largest, FARTHEST)
    a = tl.exp2(rise * to_log2)
    d = x - largest[:, :, None]
    # e · d is 0 at x = -inf; a NaN logit stays one through e
    e = tl.exp2(d * to_log2)
    u = a * (u + s * rise) + tl.sum(e * tl.maximum(d, FARTHEST), 2)
    s = a * s + tl.sum(e, 2)
    return largest, s, u


@triton.jit(do_not_specialize=["T", "vocab_start", "valid_columns"])
def row_stats_kernel(
    logits,
    target,
    weight,
    stats,
    T,
    stride,
    vocab_start,
    valid_columns,
    inv_temperature,
    HAS_WEIGHT: tl.constexpr,
    R: tl.constexpr,
    L: tl.constexpr,
    K: tl.constexpr,
    STAGES: tl.constexpr,
):
    C: tl.constexpr = L * K
    row = tl.program_id(0) * R + tl.arange(0, R)
    inside = row < T
    read = inside
    if HAS_WEIGHT:
        read = inside & (tl.load(weight + row, mask=inside, other=0.0) != 0)
    base = logits + row.to(tl.int64) * stride
    to_log2 = inv_temperature * LOG2_E

    m = tl.full((R, L), LOWEST, tl.float32)
    s = tl.zeros((R, L), tl.float32)
    u = tl.zeros((R, L), tl.float32)
    column = (tl.arange(0, L)[:, None] * K + tl.arange(0, K)[None, :])[None, :, :]
    tile = base[:, None, None] + column
    # a program without a row to read walks over nothing
    end = valid_columns * tl.max(read.to(tl.int32), 0)
    whole = end // C * C
    # whole tiles carry no column mask, so their loads are vectors whatever the vocabulary's size; naming the
    # stages makes Triton fetch the next tiles while this one is summed
    for start in tl.range(0, whole, C, num_stages=STAGES):
        mask = read[:, None, None]
        x = tl.load(tile + start) if R == 1 else tl.load(tile + start, mask=mask, other=-float("inf"))
        m, s, u = _fold(x.to(tl.float32), m, s, u, to_log2)
    for start in range(whole, end, C):
        mask = read[:, None, None] & (start + column < valid_columns)
        x = tl.load(tile + start, mask=mask, other=-float("inf"))
        m, s, u = _fold(x.to(tl.float32), m, s, u, to_log2)

    largest = tl.max(m, 1)
    rise = tl.maximum(m - largest[:, None], FARTHEST)
    a = tl.exp2(rise * to_log2)
    u_row = tl.sum(a * (u + s * rise), 1) * inv_temperature
    s_row = tl.sum(a * s, 1)

    y = tl.load(target + row, mask=inside, other=-1) - vocab_start
    owned = read & (y >= 0) & (y < valid_columns)
    x_y = tl.load(base + tl.where(owned, y, 0), mask=owned, other=-float("inf")).to(tl.float32)
    tl.store(stats + row, tl.where(read, largest, 0.0), mask=inside)
    tl.store(stats + T + row, tl.where(read, s_row, 1.0), mask=inside)
    tl.store(stats + 2 * T + row, tl.where(read, u_row, 0.0), mask=inside)
    tl.store(stats + 3 * T + row, tl.where(read, x_y, 0.0), mask=inside)


@triton.jit(do_not_specialize=["T"])
def merge_kernel(stats, rows, T, inv_temperature, W: tl.constexpr, B: tl.constexpr):
    row = tl.program_id(0) * B + tl.arange(0, B)
    inside = row < T
    m = tl.full((B,), LOWEST, tl.float32)
    x_y = tl.full((B,), -float("inf"), tl.float32)
    for rank in tl.static_range(W):
        m = tl.maximum(m, tl.load(stats + 4 * rank * T + row, mask=inside, other=0.0))
        x_y = tl.maximum(x_y, tl.load(stats + (4 * rank + 3) * T + row, mask=inside, other=0.0))
    s = tl.zeros((B,), tl.float32)
    u = tl.zeros((B,), tl.float32)
    for rank in tl.static_range(W):
        m_rank = tl.load(stats + 4 * rank * T + row, mask=inside, other=0.0)
        s_rank = tl.load(stats + (4 * rank + 1) * T + row, mask=inside, other=1.0)
        u_rank = tl.load(stats + (4 * rank + 2) * T + row, mask=inside, other=0.0)
        d = tl.maximum(m_rank - m, FARTHEST) * inv_temperature
        a = tl.exp(d)
        s += a * s_rank
        u += a * (u_rank + s_rank * d)
    log_s = tl.log(s)
    mean = u / s
    tl.store(rows + row, m, mask=inside)
    tl.store(rows + T + row, log_s, mask=inside)
    tl.store(rows + 2 * T + row, mean, mask=inside)
    tl.store(rows + 3 * T + row, (x_y - m) * inv_temperature - log_s, mask=inside)
    tl.store(rows + 4 * T + row, log_s - mean, mask=inside)


@triton.jit
def _gradient(x, is_target, m, log2_s, constant, slope, at_target, to_log2):
    """p (constant + slope d) + at_target at the target, for logits [R, L, K]."""
    d = tl.maximum(x.to(tl.float32) - m, FARTHEST)
    p = tl.exp2(d * to_log2 - log2_s)
    return p * (constant + slope * d) + tl.where(is_target, at_target, 0.0)


@triton.jit(do_not_specialize=["T", "vocab_start", "valid_columns", "columns"])
def logits_grad_kernel(
    out,
    logits,
    target,
    rows,
    grads,
    scale,
    T,
    stride_out,
    stride,
    vocab_start,
    valid_columns,
    columns,
    inv_temperature,
    R: tl.constexpr,
    L: tl.constexpr,
    K: tl.constexpr,
    STAGES: tl.constexpr,
):
    """``out`` may be ``logits``: a tile is written after it has been read, and no two tiles overlap.

    The target's logit is not read again, so that nothing depends on the order of the tiles.
    """
    C: tl.constexpr = L * K
    row = tl.program_id(0) * R + tl.arange(0, R)
    inside = row < T
    g = tl.load(grads + row, mask=inside, other=0.0)
    h = tl.load(grads + T + row, mask=inside, other=0.0)
    m = tl.load(rows + row, mask=inside, other=0.0)[:, None, None]
    log2_s = (tl.load(rows + T + row, mask=inside, other=0.0) * LOG2_E)[:, None, None]
    mean = tl.load(rows + 2 * T + row, mask=inside, other=0.0)
    # a target outside the shard's real columns gets nothing here; within it 32 bits hold it
    y = tl.load(target + row, mask=inside, other=-1) - vocab_start
    y = tl.where((y >= 0) & (y < valid_columns), y, -1).to(tl.int32)[:, None, None]

    # -(g + h (d/τ - mean)) / τ = constant + slope d
    factor = tl.load(scale).to(tl.float32) * inv_temperature
    at_target = (g * factor)[:, None, None]
    constant = ((h * mean - g) * factor)[:, None, None]
    slope = (-h * inv_temperature * factor)[:, None, None]
    to_log2 = inv_temperature * LOG2_E

    keep = (g != 0) | (h != 0)
    any_kept = tl.max(keep.to(tl.int32), 0)
    keep = keep[:, None, None]
    inside = inside[:, None, None]
    column = (tl.arange(0, L)[:, None] * K + tl.arange(0, K)[None, :])[None, :, :]
    source = logits + (row.to(tl.int64) * stride)[:, None, None] + column
    sink = out + (row.to(tl.int64) * stride_out)[:, None, None] + column
    kind = out.dtype.element_ty
    # whole tiles of real columns without a mask, then what is left with one; a program whose rows have no
    # gradient reads nothing and only writes zeros
    whole = valid_columns * any_kept // C * C
    for start in tl.range(0, whole, C, num_stages=STAGES):
        x = tl.load(source + start) if R == 1 else tl.load(source + start, mask=keep, other=0.0)
        grad = _gradient(x, column == y - start, m, log2_s, constant, slope, at_target, to_log2)
        if R == 1:
            tl.store(sink + start, grad.to(kind))
        else:
            tl.store(sink + start, tl.where(keep, grad, 0.0).to(kind), mask=inside)
    for start in range(whole, columns * any_kept, C):
        real = keep & (start + column < valid_columns)
        x = tl.load(source + start, mask=real, other=0.0)
        grad = _gradient(x, column == y - start, m, log2_s, constant, slope, at_target, to_log2)
        mask = inside & (start + column < columns)
        tl.store(sink + start, tl.where(real, grad, 0.0).to(kind), mask=mask)
    for start in range(columns * any_kept, columns, C):
        mask = inside & (start + column < columns)
        tl.store(sink + start, tl.zeros((R, L, K), kind), mask=mask)


@triton.jit(do_not_specialize=["T"])
def objective_kernel(
    rows,
    advantage,
    weight,
    old_logprob,
    ref_logprob,
    importance,
    grads,
    partials,
    T,
    low,
    high,
    dual_clip,
    kl_coef,
    entropy_coef,
    KIND: tl.constexpr,
    KL_KIND: tl.constexpr,
    HAS_OLD: tl.constexpr,
    HAS_REF: tl.constexpr,
    HAS_IMPORTANCE: tl.constexpr,
    HAS_DUAL_CLIP: tl.constexpr,
    B: tl.constexpr,
):
    """``reference.objective_terms`` for the kinds with a ratio per token; line by line the same."""
    program = tl.program_id(0)
    N = tl.num_programs(0)
    row = program * B + tl.arange(0, B)
    w = tl.load(weight + row, mask=row < T, other=0.0)
    active = w != 0
    logp = tl.load(rows + 3 * T + row, mask=active, other=0.0)
    entropy = tl.load(rows + 4 * T + row, mask=active, other=0.0)
    adv = tl.load(advantage + row, mask=active, other=0.0)
    factor = tl.full((B,), 1.0, tl.float32)
    if HAS_IMPORTANCE:
        factor = tl.load(importance + row, mask=active, other=0.0)
    log_ratio = tl.zeros((B,), tl.float32)
    if HAS_OLD:
        log_ratio = logp - tl.load(old_logprob + row, mask=active, other=0.0)
    ratio = tl.exp(log_ratio)
    clipped = tl.minimum(tl.maximum(ratio, low), high)

    if KIND == "reinforce":
        slope = adv
        surrogate = adv * logp
        is_low = active & False
        is_high = active & False
    elif KIND == "cispo":
        slope = clipped * adv
        surrogate = slope * logp
        is_low = ratio < low
        is_high = ratio > high
    else:
        unclipped = tl.where(adv == 0, 0.0, ratio * adv)
        surrogate = tl.minimum(unclipped, clipped * adv)
        slope = tl.where(unclipped <= clipped * adv, unclipped, 0.0)
        if HAS_DUAL_CLIP:
            bound = tl.where(adv < 0, dual_clip * adv, -float("inf"))
            slope = tl.where(surrogate < bound, 0.0, slope)
            surrogate = tl.maximum(surrogate, bound)
        is_low = (ratio < low) & (adv < 0)
        is_high = (ratio > high) & (adv > 0)

    loss = -factor * surrogate
    g = -factor * slope * w
    k3 = tl.zeros((B,), tl.float32)
    if HAS_REF:
        delta = tl.load(ref_logprob + row, mask=active, other=0.0) - logp
        k3 = tl.exp(delta) - delta - 1
        if KL_KIND == "k1":
            loss += kl_coef * -delta
            g += kl_coef * w
        elif KL_KIND == "k2":
            loss += kl_coef * delta * delta / 2
            g += kl_coef * -delta * w
        elif KL_KIND == "k3":
            loss += kl_coef * k3
            g += kl_coef * (1 - tl.exp(delta)) * w
    loss -= entropy_coef * entropy

    tl.store(grads + row, tl.where(active, g, 0.0), mask=row < T)
    tl.store(grads + T + row, tl.where(active, -entropy_coef * w, 0.0), mask=row < T)
    sums = partials + program
    tl.store(sums, tl.sum(tl.where(active, w * loss, 0.0), 0))
    tl.store(sums + N, tl.sum(active.to(tl.float32), 0))
    tl.store(sums + 2 * N, tl.sum((is_low & active).to(tl.float32), 0))
    tl.store(sums + 3 * N, tl.sum((is_high & active).to(tl.float32), 0))
    tl.store(sums + 4 * N, tl.sum(k3, 0))
    tl.store(sums + 5 * N, tl.sum(-log_ratio, 0))
    tl.store(sums + 6 * N, tl.sum(entropy, 0))
    tl.store(sums + 7 * N, tl.min(tl.where(active, ratio, float("inf")), 0))
    tl.store(sums + 8 * N, tl.max(tl.where(active, ratio, -float("inf")), 0))


@triton.jit(do_not_specialize=["N"])
def summary_kernel(partials, summary, N, B: tl.constexpr):
    """[9, N] to [9] by one program, in a fixed order."""
    low = tl.full((B,), float("inf"), tl.float32)
    high = tl.full((B,), -float("inf"), tl.float32)
    count = tl.zeros((B,), tl.float32)
    for start in range(0, N, B):
        n = start + tl.arange(0, B)
        count += tl.load(partials + N + n, mask=n < N, other=0.0)
        low = tl.minimum(low, tl.load(partials + 7 * N + n, mask=n < N, other=float("inf")))
        high = tl.maximum(high, tl.load(partials + 8 * N + n, mask=n < N, other=-float("inf")))
    tokens = tl.sum(count, 0)
    tl.store(summary + 1, tokens)
    tl.store(summary + 7, tl.min(low, 0))
    tl.store(summary + 8, tl.max(high, 0))
    for name in tl.static_range(0, 7):
        if name != 1:
            total = tl.zeros((B,), tl.float32)
            for start in range(0, N, B):
                n = start + tl.arange(0, B)
                total += tl.load(partials + name * N + n, mask=n < N, other=0.0)
            value = tl.sum(total, 0)
            if name > 1:
                value = value / tl.maximum(tokens, 1.0)
            tl.store(summary + name, value)
