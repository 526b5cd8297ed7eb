"""Weights: Hugging Face <-> Megatron-Core <-> vLLM, from one table a family."""

from igrpo_mcore.weights.hf_import import LoadStats, load_hf_weights
from igrpo_mcore.weights.sync import PushStats, WeightSync

__all__ = ["LoadStats", "PushStats", "WeightSync", "load_hf_weights"]
