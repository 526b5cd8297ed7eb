"""Weights: Hugging Face <-> Megatron-Core <-> vLLM, from one table a family."""

from igrpo_mcore.weights.hf_export import ExportStats, export_hf
from igrpo_mcore.weights.hf_import import LoadStats, load_hf_weights
from igrpo_mcore.weights.sync import PushStats, WeightSync
from igrpo_mcore.weights.verify import VerifyReport, verify_weights

__all__ = [
    "ExportStats",
    "LoadStats",
    "PushStats",
    "VerifyReport",
    "WeightSync",
    "export_hf",
    "load_hf_weights",
    "verify_weights",
]
