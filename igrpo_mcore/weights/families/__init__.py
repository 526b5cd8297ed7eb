"""One small table a family: Hugging Face name <-> Megatron name, split, fused, permuted, tied."""

from collections.abc import Callable
from typing import Any

from igrpo_mcore.errors import UserError
from igrpo_mcore.weights.families import llama, nemotron_h, qwen2, qwen3, qwen3_moe
from igrpo_mcore.weights.table import Table

FAMILIES: dict[str, Callable[[Any], Table]] = {
    "llama": llama.table,
    "nemotron_h": nemotron_h.table,
    "qwen2": qwen2.table,
    "qwen3": qwen3.table,
    "qwen3_moe": qwen3_moe.table,
}


def table_for(hf_config: Any) -> Table:
    """The table of a transformers config.

    Raises:
        UserError: no table for its ``model_type``.
    """
    family = getattr(hf_config, "model_type", None)
    if family not in FAMILIES:
        raise UserError(
            f"there is no weight table for model type {family!r}; supported are {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[family](hf_config)
