"""Qwen3 (dense): norms on each query and key head, no biases."""

from typing import Any

from igrpo_mcore.weights.families.transformer import attention, swiglu, transformer
from igrpo_mcore.weights.table import Table


def table(config: Any) -> Table:
    return transformer(config, attention(config, qk_norm=True), [swiglu(config)] * config.num_hidden_layers)
