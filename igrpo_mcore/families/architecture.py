"""A decoder's shape in the terms Megatron-Core asks for, and what a family is.

Every family is one ``HybridModel`` layer pattern: a transformer block is two layers, attention ``*``
then MLP ``-``; Nemotron-H's layers (Mamba ``M``, ``*``, ``-``) map one to one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from igrpo_mcore.weights.table import Table


@dataclass(frozen=True)
class Mamba:
    """Mamba-2 mixer sizes: heads, width a head, state, groups that share B and C."""

    heads: int
    head_dim: int
    state_dim: int
    groups: int


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A decoder's shape. Sizes are whole-model, before any parallel split.

    ``window`` is how many tokens a position attends to, None for all that are before it; the policy's
    attention is full, so no sequence may be longer.
    """

    pattern: str
    hidden: int
    ffn_hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    norm_eps: float
    tied_embeddings: bool
    dtype: str
    qkv_bias: bool = False
    qk_norm: bool = False
    gated_mlp: bool = True
    rope_theta: float | None = None
    rope_scaling: dict[str, Any] | None = None
    window: int | None = None
    mamba: Mamba | None = None

    @property
    def layers(self) -> int:
        """Hybrid layers, the length of the pattern."""
        return len(self.pattern)


@dataclass(frozen=True)
class Family:
    """What is known of one ``model_type`` of transformers.

    ``accepts``: the values of config fields that the policy computes rightly with, others are refused
    (a config without the field has the first). ``fields`` is what the family's own config fields add to an
    ``Architecture``, ``table`` its weight table, ``tiny`` the config fields of its tiny checkpoint.
    """

    accepts: Mapping[str, tuple]
    fields: Callable[[Any], dict[str, Any]]
    table: Callable[[Architecture], Table]
    tiny: Mapping[str, Any] = field(default_factory=dict)
