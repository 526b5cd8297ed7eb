"""Where a plan takes the architecture from: a folder, the hub's cache, or the shapes written here.

The catalogue holds the models that the recipes name, so that a plan needs neither network nor
weights. Figures are those of each model's public config.json on the hub.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from igrpo_mcore.errors import UserError
from igrpo_mcore.families import architecture_of, table_for
from igrpo_mcore.families.architecture import Architecture
from igrpo_mcore.policy.architecture import load_hf_config
from igrpo_mcore.weights.table import Table

# Qwen/Qwen2.5-7B and Qwen/Qwen2.5-14B; the fine-tunes below keep the shape and lengthen the positions
_QWEN25_7B: dict[str, Any] = dict(
    model_type="qwen2",
    vocab_size=152064,
    hidden_size=3584,
    intermediate_size=18944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    max_position_embeddings=131072,
    rms_norm_eps=1e-6,
    tie_word_embeddings=False,
)
_QWEN25_14B: dict[str, Any] = _QWEN25_7B | dict(
    hidden_size=5120,
    intermediate_size=13824,
    num_hidden_layers=48,
    num_attention_heads=40,
    num_key_value_heads=8,
)
# the instruction-tuned fine-tunes keep the shapes
_QWEN25_SMALL: dict[str, Any] = _QWEN25_7B | dict(
    vocab_size=151936, max_position_embeddings=32768, tie_word_embeddings=True, num_key_value_heads=2
)
_QWEN25_05B: dict[str, Any] = _QWEN25_SMALL | dict(
    hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14
)
_QWEN25_15B: dict[str, Any] = _QWEN25_SMALL | dict(
    hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12
)
_LLAMA32_1B: dict[str, Any] = dict(
    model_type="llama",
    vocab_size=128256,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=64,
    max_position_embeddings=131072,
    rms_norm_eps=1e-5,
    rope_theta=500000.0,
    rope_scaling=dict(
        rope_type="llama3",
        factor=32.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    ),
    tie_word_embeddings=True,
)
# nvidia/Nemotron-H-8B-Base-8K: 24 Mamba, 24 MLP and 4 attention layers
_NEMOTRON_H_8B: dict[str, Any] = dict(
    model_type="nemotron_h",
    vocab_size=131072,
    hidden_size=4096,
    intermediate_size=21504,
    hybrid_override_pattern="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    mamba_num_heads=128,
    mamba_head_dim=64,
    ssm_state_size=128,
    n_groups=8,
    conv_kernel=4,
    max_position_embeddings=8192,
    tie_word_embeddings=False,
)

CATALOGUE: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-7B": _QWEN25_7B,
    "Qwen/Qwen2.5-14B": _QWEN25_14B,
    "nvidia/OpenMath-Nemotron-7B": _QWEN25_7B,
    "nvidia/OpenMath-Nemotron-14B": _QWEN25_14B,
    "nvidia/OpenReasoning-Nemotron-7B": _QWEN25_7B,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": _QWEN25_7B,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": _QWEN25_14B,
    "nvidia/Nemotron-H-8B-Base-8K": _NEMOTRON_H_8B,
    "Qwen/Qwen2.5-0.5B-Instruct": _QWEN25_05B,
    "Qwen/Qwen2.5-1.5B-Instruct": _QWEN25_15B,
    "meta-llama/Llama-3.2-1B-Instruct": _LLAMA32_1B,
}
"""Hub id -> fields of its config.json."""


@dataclass(frozen=True, eq=False)
class PlannedModel:
    """What a plan knows of a model: config, architecture and weight table; ``source`` says whence."""

    path: str
    source: str
    hf_config: Any
    architecture: Architecture
    table: Table


def itemsize(architecture: Architecture) -> int:
    """Bytes of a parameter or activation."""
    return 4 if architecture.dtype == "float32" else 2


def planned_model(path: str, dtype: str) -> PlannedModel:
    """The model of ``model.path``: a folder or cached hub id as it is, else the catalogue, else the hub.

    The catalogue goes before the hub: without a network the hub's client retries for half a minute.

    Raises:
        UserError: none of the three knows it, or its features are not supported.
    """
    return _planned_model(path, str(dtype))


@cache
def _planned_model(path: str, dtype: str) -> PlannedModel:
    config, source = _config(path)
    return PlannedModel(path, source, config, architecture_of(config, dtype), table_for(config))


def _config(path: str) -> tuple[Any, str]:
    from transformers import AutoConfig

    if Path(path).exists():
        return load_hf_config(path), "config.json of the folder"
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True), "config.json of the local hub cache"
    except (OSError, ValueError):
        pass
    if path in CATALOGUE:
        return catalogue_config(path), "built-in catalogue (config.json is neither local nor cached)"
    try:
        return load_hf_config(path), "config.json of the hub"
    except UserError as error:
        known = ", ".join(sorted(CATALOGUE))
        raise UserError(f"{error}; a plan without network knows {known}") from error


def catalogue_config(path: str) -> Any:
    """transformers' config of a catalogued hub id."""
    from transformers import AutoConfig

    fields = dict(CATALOGUE[path])
    return AutoConfig.for_model(fields.pop("model_type"), **fields)
