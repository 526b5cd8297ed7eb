"""Qwen2, Qwen2.5: biases on query, key and value."""

from typing import Any

from igrpo_mcore.weights.families.transformer import attention, swiglu, transformer
from igrpo_mcore.weights.table import Table


def table(config: Any) -> Table:
    return transformer(config, attention(config, bias=True), [swiglu(config)] * config.num_hidden_layers)
