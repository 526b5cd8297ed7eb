"""FLOPs of a forward pass: 2 a parameter and token for the matrix products, attention over half the
sequence (causal), the state-space dual form for Mamba (arXiv 2405.21060, section 6)."""

from igrpo_mcore.families.architecture import Architecture
from igrpo_mcore.planning.activations import SCAN_CHUNK
from igrpo_mcore.planning.catalogue import PlannedModel


def body_parameters(model: PlannedModel) -> int:
    """Parameters that every token multiplies: all but the embedding and the head."""
    a = model.architecture
    return model.table.parameters - a.vocab_size * a.hidden * (1 if a.tied_embeddings else 2)


def mixing_flops(architecture: Architecture, context: float) -> float:
    """FLOPs a token of attention over ``context`` earlier tokens, and of the Mamba scan."""
    a = architecture
    attention = a.pattern.count("*") * 4 * context * a.heads * a.head_dim
    if a.mamba is None:
        return attention
    inner, mixed = a.mamba.heads * a.mamba.head_dim, a.mamba.groups * a.mamba.state_dim
    scan = 2 * SCAN_CHUNK * (mixed + inner) + 4 * inner * a.mamba.state_dim
    return attention + a.pattern.count("M") * scan


def head_flops(model: PlannedModel, rows: float) -> float:
    """The LM head on ``rows``."""
    return rows * 2 * model.architecture.hidden * model.architecture.vocab_size


def forward_flops(model: PlannedModel, tokens: float, head_rows: float, length: float) -> float:
    """Forward FLOPs of ``tokens`` in sequences of ``length``, with the LM head on ``head_rows``."""
    body = tokens * (2 * body_parameters(model) + mixing_flops(model.architecture, length / 2))
    return body + head_flops(model, head_rows)
