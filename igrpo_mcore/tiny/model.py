"""The Hugging Face config of a family's tiny checkpoint.

Every count that parallelism splits (blocks, heads, key-value heads, Mamba heads and groups,
vocabulary) divides by 2, and head_dim is one that vLLM's CPU attention knows (32).
"""

from typing import Any

from transformers import AutoConfig, PretrainedConfig

from igrpo_mcore.errors import UserError
from igrpo_mcore.families import families
from igrpo_mcore.tiny.tokenizer import SPECIALS, VOCAB_SIZE


def model_config(family: str) -> PretrainedConfig:
    """The config of a model under 3 M parameters; raises UserError for an unknown family."""
    if family not in families():
        raise UserError(f"--family {family} is not known: give one of {', '.join(families())}.")
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
    return AutoConfig.for_model(family, **common, **families()[family].tiny)
