"""Llama 2, 3: no biases, no per-head norms."""

from typing import Any

from igrpo_mcore.weights.families.transformer import attention, swiglu, transformer
from igrpo_mcore.weights.table import Table


def table(config: Any) -> Table:
    return transformer(config, attention(config), [swiglu(config)] * config.num_hidden_layers)
