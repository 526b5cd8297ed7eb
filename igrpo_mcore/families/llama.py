"""Llama 2, 3: no biases, no per-head norms."""

from igrpo_mcore.families.transformer import transformer

FAMILY = transformer()
