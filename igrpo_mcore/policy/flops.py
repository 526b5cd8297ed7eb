"""Floating-point operations that a model's own sizes ask for: no estimate, no share of a peak.

A multiplication and an addition are two. Counted are matrix products: layers, attention over the
tokens that a token really sees, the state-space dual form for Mamba (arXiv 2405.21060, section 6), the
LM head on the rows that reach it. Not counted: norms, embeddings, softmax, the optimizer.
"""

from igrpo_mcore.families.architecture import Architecture

SCAN_CHUNK = 128
"""Tokens that Mamba's scan takes at once."""


def layer_flops(architecture: Architecture) -> int:
    """Forward FLOP of one token in all layers but for what depends on the tokens before it."""
    a = architecture
    projections = {
        "*": a.hidden * a.head_dim * (2 * a.heads + 2 * a.kv_heads),
        "-": a.hidden * a.ffn_hidden * (3 if a.gated_mlp else 2),
    }
    scan = 0
    if a.mamba is not None:
        inner, mixed = a.mamba.heads * a.mamba.head_dim, a.mamba.groups * a.mamba.state_dim
        projections["M"] = a.hidden * (3 * inner + 2 * mixed + a.mamba.heads)
        scan = 2 * SCAN_CHUNK * (mixed + inner) + 4 * inner * a.mamba.state_dim
    return 2 * sum(projections[layer] for layer in a.pattern) + scan * a.pattern.count("M")


def attention_flops(architecture: Architecture) -> int:
    """Forward FLOP of one pair of a token and a token that it sees, in all attention layers."""
    return 4 * architecture.heads * architecture.head_dim * architecture.pattern.count("*")


def forward_flops(architecture: Architecture, tokens: int, pairs: int, head_rows: int) -> int:
    """Forward FLOP of ``tokens`` that see ``pairs`` tokens altogether (n(n + 1)/2 for one sequence of n),
    with the LM head on ``head_rows``."""
    head = 2 * architecture.hidden * architecture.vocab_size
    return tokens * layer_flops(architecture) + pairs * attention_flops(architecture) + head_rows * head


def update_flops(architecture: Architecture, tokens: int, pairs: int, head_rows: int) -> int:
    """FLOP of forward and backward, which is twice the forward. What recomputation adds is not counted
    (Narayanan et al., arXiv 2104.04473, section 5.1, call that the model's FLOP)."""
    return 3 * forward_flops(architecture, tokens, pairs, head_rows)
