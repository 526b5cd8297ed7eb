"""Qwen3: norms of each query and key head."""

from igrpo_mcore.families.transformer import transformer

FAMILY = transformer({"use_sliding_window": (False, None)}, qk_norm=True)
