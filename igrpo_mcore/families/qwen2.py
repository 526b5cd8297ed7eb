"""Qwen2, Qwen2.5: biases on query, key and value."""

from igrpo_mcore.families.transformer import transformer

FAMILY = transformer({"use_sliding_window": (False, None)}, qkv_bias=True)
