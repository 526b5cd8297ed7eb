"""Model families, one file each: what a Hugging Face config means, the layer pattern, the weight table.

A family is the module of this folder that is called like its ``model_type`` and defines ``FAMILY``.
"""

import importlib
import pkgutil
from functools import cache
from typing import Any

from igrpo_mcore.errors import UserError
from igrpo_mcore.families.architecture import Architecture, Family
from igrpo_mcore.weights.table import Table


@cache
def families() -> dict[str, Family]:
    """By ``model_type``, in alphabetical order."""
    modules = {
        m.name: importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    }
    return {name: module.FAMILY for name, module in modules.items() if hasattr(module, "FAMILY")}


def architecture_of(config: Any, dtype: str = "bfloat16") -> Architecture:
    """Read a transformers config.

    Raises:
        UserError: an unsupported family or a feature of it that the policy does not implement.
    """
    family = families().get(config.model_type)
    if family is None:
        raise UserError(
            f"model type {config.model_type!r} is not supported; supported are {', '.join(families())}"
        )
    for name, accepted in family.accepts.items():
        value = getattr(config, name, accepted[0])
        if value not in accepted:
            raise UserError(
                f"{type(config).__name__} with {name}={value} is not supported; use a checkpoint with "
                f"{name}={accepted[0]}"
            )
    return Architecture(
        hidden=config.hidden_size,
        ffn_hidden=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        vocab_size=config.vocab_size,
        tied_embeddings=bool(config.tie_word_embeddings),
        window=getattr(config, "sliding_window", None),
        dtype=str(dtype),
        **family.fields(config),
    )


def table_for(config: Any) -> Table:
    """The weight table of a transformers config; raises what ``architecture_of`` raises."""
    architecture = architecture_of(config)
    return families()[config.model_type].table(architecture)
