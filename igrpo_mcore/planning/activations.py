"""What a layer keeps for its backward pass, tensor by tensor, bytes a token.

The lists follow Korthikanti et al. (arXiv 2205.05198, section 4: what each operation of a
transformer layer stores; table 2: how tensor and sequence parallelism divide it), adapted to what
the policy really runs: flash attention (no T x T matrix; query, key, value, output and one fp32
log-sum-exp a head), grouped queries, RMSNorm, no dropout and no masks, fused SwiGLU or squared ReLU
without fusion, fused rotary embeddings, and Mamba-2 (mamba_ssm's
``MambaSplitConv1dScanCombinedFn`` saves the packed projection and the scan's output, and recomputes
the rest). ``Kernels.torch`` lists what the PyTorch stand-ins of a machine without a GPU keep in
place of it, so that a test can compare with what autograd saves there.
"""

from dataclasses import dataclass
from enum import StrEnum

from igrpo_kernels.linear import CHUNK_TOKENS

from igrpo_mcore.families.architecture import Architecture
from igrpo_mcore.planning.catalogue import itemsize

SCAN_CHUNK = 128
"""Tokens a dense block of the Mamba scan (``MambaMixer``'s default chunk_size)."""


class Kernels(StrEnum):
    """Whose norm, attention, SwiGLU and rotary embedding run: Transformer Engine's, flash attention and
    Megatron's fused kernel, or PyTorch's."""

    fused = "fused"
    torch = "torch"


@dataclass(frozen=True)
class Shape:
    """A layer's sizes on one rank. ``b`` is bytes of the activation type."""

    architecture: Architecture
    tp: int
    sp: bool

    @property
    def b(self) -> int:
        return itemsize(self.architecture)

    @property
    def hidden(self) -> float:
        """Width of the residual stream on one rank: divided by TP only under sequence parallelism."""
        return self.architecture.hidden / (self.tp if self.sp else 1)

    @property
    def rows(self) -> float:
        """Share of a token's row on one rank."""
        return 1 / self.tp if self.sp else 1.0

    @property
    def query(self) -> float:
        return self.architecture.heads * self.architecture.head_dim / self.tp

    @property
    def key(self) -> float:
        return self.architecture.kv_heads * self.architecture.head_dim / self.tp

    @property
    def ffn(self) -> float:
        return self.architecture.ffn_hidden / self.tp


Saved = dict[str, float]
"""Name of a saved tensor -> bytes a token."""


def _norm(shape: Shape, kernels: Kernels) -> Saved:
    if kernels == Kernels.fused:
        return {"norm input": shape.b * shape.hidden, "norm rstd": 4 * shape.rows}
    # torch's RMSNorm of 16-bit inputs keeps an fp32 copy and the fp32 product
    return {"norm input": 4 * shape.hidden, "norm output fp32": 4 * shape.hidden, "norm rstd": 4 * shape.rows}


def attention(shape: Shape, kernels: Kernels) -> Saved:
    """Saved by one ``*`` layer: norm, QKV projection, rotary embedding, attention, output projection."""
    a, b = shape.architecture, shape.b
    q, k = shape.query, shape.key
    saved = _norm(shape, kernels)
    saved["qkv input"] = b * shape.hidden
    saved["qkv output"] = b * (q + 2 * k)
    if a.rope_theta is not None:
        if kernels == Kernels.torch:
            saved["rotary cos and sin of q and k"] = 4 * b * a.head_dim
        saved["rotated q and k"] = b * (q + k)
    elif a.heads > a.kv_heads > shape.tp:
        saved["query copy"] = b * q  # heads of several groups on a rank are not contiguous in the QKV output
    if a.qk_norm:
        # per-head norms keep the input of each (a view of the QKV output) or its fp32 copies
        saved["q and k norms"] = 4 * (a.heads + a.kv_heads) / shape.tp + (
            b * (q + k) if kernels == Kernels.fused else 8 * (q + k)
        )
    saved["log-sum-exp"] = 4 * a.heads / shape.tp
    saved["attention output"] = b * q
    if kernels == Kernels.torch:
        saved["padded q, k, v"] = b * (q + 2 * k)
        saved["padded output"] = b * q
        saved["padding index"] = 8
    return saved


def mlp(shape: Shape, kernels: Kernels) -> Saved:
    """Saved by one ``-`` layer: norm, first projection, activation, second projection."""
    b, f = shape.b, shape.ffn
    saved = _norm(shape, kernels)
    saved["fc1 input"] = b * shape.hidden
    if shape.architecture.gated_mlp:
        saved["fc1 output"] = 2 * b * f
        if kernels == Kernels.torch:
            # megatron.core MLP.glu without bias_activation_fusion: silu(gate), and linear + offset as a copy
            saved["silu of the gate"] = b * f
            saved["linear part"] = b * f
    else:
        saved["relu of fc1"] = b * f
    saved["fc2 input"] = b * f
    return saved


def mamba(shape: Shape) -> Saved:
    """Saved by one ``M`` layer with mamba_ssm's kernels: packed projection, scan output, gated norm."""
    a, b = shape.architecture, shape.b
    assert a.mamba is not None
    inner = a.mamba.heads * a.mamba.head_dim / shape.tp
    saved = _norm(shape, Kernels.fused)
    saved["in_proj input"] = b * shape.hidden
    saved["in_proj output"] = b * mamba_projection(shape)
    saved["scan output"] = b * inner
    saved["gated scan output"] = b * inner
    saved["group norm rstd"] = 4 * a.mamba.groups / shape.tp
    saved["out_proj input"] = b * inner
    return saved


def mamba_projection(shape: Shape) -> float:
    """Columns of in_proj (z, x, B, C, dt) on one rank."""
    m = shape.architecture.mamba
    assert m is not None
    return (2 * m.heads * m.head_dim + 2 * m.groups * m.state_dim + m.heads) / shape.tp


def saved_by_layer(symbol: str, shape: Shape, kernels: Kernels = Kernels.fused) -> float:
    """Bytes a token that one layer of kind ``symbol`` keeps without recomputation."""
    if symbol == "*":
        return sum(attention(shape, kernels).values())
    if symbol == "-":
        return sum(mlp(shape, kernels).values())
    return sum(mamba(shape).values())


def checkpoint_of_layer(shape: Shape) -> float:
    """Bytes a token that full recomputation keeps of a layer: its input (recompute_num_layers=1)."""
    return shape.b * shape.hidden


def backward_workspace(symbol: str, shape: Shape) -> float:
    """Bytes a token of gradients and gathered inputs alive at the worst point of a layer's backward.

    Counted from the backward of each list above: under sequence parallelism the layer's input is
    gathered again for the weight gradient (Korthikanti, section 4.2.2), and the whole-row input
    gradient lies there before its reduce-scatter.
    """
    a, b = shape.architecture, shape.b
    stream = b * shape.hidden * 2 + (2 * b * a.hidden if shape.sp else 0)
    if symbol == "*":
        return stream + b * (3 * shape.query + 6 * shape.key)
    if symbol == "-":
        return stream + b * shape.ffn * (5 if a.gated_mlp else 2)
    m = a.mamba
    assert m is not None
    inner, mixed = m.heads * m.head_dim / shape.tp, 2 * m.groups * m.state_dim / shape.tp
    # recomputed conv output, gradients of it and of the projection, fp32 chunk states and their gradients
    states = 2 * 4 * inner * m.state_dim / SCAN_CHUNK
    return stream + b * (mamba_projection(shape) + 2 * (inner + mixed) + 2 * inner) + states


def embedding_saved(shape: Shape) -> float:
    """Bytes a token that stage 0 keeps before the layers: ids and rotary table."""
    rope = 4.0 * shape.architecture.head_dim if shape.architecture.rope_theta is not None else 0.0
    return 8 + rope


def final_norm_saved(shape: Shape, kernels: Kernels = Kernels.fused) -> float:
    """Bytes a token of the final norm on the last stage."""
    return sum(_norm(shape, kernels).values())


def head_bytes(shape: Shape, vocabulary_columns: int) -> float:
    """Bytes a response row at the LM head: logits (the loss writes its gradient over them), the
    selected hidden state and its gradient, and the loss's fp32 statistics of every TP rank."""
    a, b = shape.architecture, shape.b
    return b * vocabulary_columns + 2 * b * a.hidden + 4 * (8 + 4 * shape.tp)


def fused_head_bytes(shape: Shape, vocabulary_columns: int, rows: float, *, gradient: bool) -> float:
    """Bytes at the LM head with ``model.fused_head`` (``igrpo_kernels.linear``): logits of a chunk of rows,
    the selected hidden states, the loss's statistics; with ``gradient`` that of the hidden states and the
    head's own in fp32, which chunks are summed in. The plain head is ``head_bytes``.
    """
    a, b = shape.architecture, shape.b
    held = b * vocabulary_columns * min(rows, CHUNK_TOKENS) + rows * (b * a.hidden + 4 * (8 + 4 * shape.tp))
    return held + (rows * b * a.hidden + 4 * vocabulary_columns * a.hidden if gradient else 0)


def head_bytes_per_token(shape: Shape) -> float:
    """Bytes a token at the LM head beside the rows: the gathered hidden state and its gradient."""
    return 2 * shape.b * shape.architecture.hidden if shape.sp else shape.b * shape.architecture.hidden
