"""Weights: Hugging Face <-> Megatron-Core <-> vLLM, from one table a family.

The names below are imported when they are first used: the planner reads the tables in a process
that never loads Megatron-Core.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from igrpo_mcore.weights.hf_export import ExportStats, export_hf
    from igrpo_mcore.weights.hf_import import load_hf_weights
    from igrpo_mcore.weights.push import Pusher, PushStats
    from igrpo_mcore.weights.verify import VerifyReport, verify_weights

_HOME = {
    "ExportStats": "hf_export",
    "PushStats": "push",
    "VerifyReport": "verify",
    "Pusher": "push",
    "export_hf": "hf_export",
    "load_hf_weights": "hf_import",
    "verify_weights": "verify",
}

__all__ = [
    "ExportStats",
    "PushStats",
    "Pusher",
    "VerifyReport",
    "export_hf",
    "load_hf_weights",
    "verify_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
