"""Mistral 7B, Nemo, Small: Llama's layers; the sliding window of the oldest bounds a sequence."""

from igrpo_mcore.families.transformer import transformer

FAMILY = transformer()
