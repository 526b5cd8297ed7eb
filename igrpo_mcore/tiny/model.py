"""The Hugging Face configs of the tiny checkpoint, one a family.

Every count that parallelism splits (blocks, heads, key-value heads, Mamba heads and groups,
vocabulary) divides by 2, and head_dim is one that vLLM's CPU attention knows (32).
"""

from enum import StrEnum
from typing import Any

from transformers import NemotronHConfig, PretrainedConfig, Qwen3Config

from igrpo_mcore.errors import UserError
from igrpo_mcore.tiny.tokenizer import SPECIALS, VOCAB_SIZE


class Family(StrEnum):
    qwen3 = "qwen3"
    nemotron_h = "nemotron_h"


NEMOTRON_H_BLOCKS = ("mamba", "mlp", "attention", "mlp") * 2
"""``M-*-M-*-``: two pipeline stages of the same four blocks."""


def model_config(family: str) -> PretrainedConfig:
    """The config of a model under 3 M parameters; raises UserError for an unknown family."""
    common: dict[str, Any] = dict(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        initializer_range=0.06,  # near 1/sqrt(hidden); 0.02 is for wide models
        bos_token_id=None,
        eos_token_id=SPECIALS.index("<eos>"),
        pad_token_id=SPECIALS.index("<pad>"),
        dtype="float32",
    )
    if family == Family.qwen3:
        return Qwen3Config(
            **common, architectures=["Qwen3ForCausalLM"], num_hidden_layers=4, intermediate_size=384
        )
    if family == Family.nemotron_h:
        return NemotronHConfig(
            **common,
            architectures=["NemotronHForCausalLM"],
            layers_block_type=list(NEMOTRON_H_BLOCKS),
            intermediate_size=384,
            mamba_num_heads=8,
            mamba_head_dim=32,
            ssm_state_size=16,
            n_groups=2,
            conv_kernel=4,
            use_mamba_kernels=False,
        )
    known = ", ".join(member.value for member in Family)
    raise UserError(f"--family {family} is not known: give one of {known}.")
