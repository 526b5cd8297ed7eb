"""Which implementation runs: the Triton kernels or the plain PyTorch reference. Explicit, and logged once."""

from __future__ import annotations

import importlib.util
import logging
import os
from functools import cache

import torch

logger = logging.getLogger("igrpo_kernels")

PATHS = ("triton", "reference")
VARIABLE = "IGRPO_KERNELS"

_forced: str | None = None


def set_path(path: str | None) -> None:
    """Run every later call on "triton" or "reference"; None: decide by the tensor's device.

    Goes before the environment variable IGRPO_KERNELS, which takes the same two words.
    """
    if path is not None and path not in PATHS:
        raise ValueError(f"kernel path {path!r} is not one of {', '.join(PATHS)}")
    global _forced
    _forced = path


def path_of(tensor: torch.Tensor) -> str:
    """The path of tensors like this one, "triton" or "reference".

    Raises:
        RuntimeError: Triton is asked for where it cannot run.
        ValueError: IGRPO_KERNELS holds another word.
    """
    wanted = _forced or os.environ.get(VARIABLE) or None
    return _decide(wanted, tensor.device.type, tensor.dtype == torch.float64, interpreted())


@cache
def _decide(wanted: str | None, device: str, is_double: bool, is_interpreted: bool) -> str:
    if wanted is not None and wanted not in PATHS:
        raise ValueError(f"{VARIABLE}={wanted} is not one of {', '.join(PATHS)}")
    obstacle = _obstacle(device, is_double, is_interpreted)
    if wanted == "triton" and obstacle and not is_double:
        raise RuntimeError(f"the Triton kernels were asked for, but {obstacle}")
    if wanted == "reference":
        path, reason = "reference", "asked for"
    elif obstacle:
        path, reason = "reference", obstacle
    elif device == "cuda" or wanted == "triton":
        path, reason = "triton", "asked for" if wanted else "a CUDA device"
    else:
        path, reason = "reference", "Triton's interpreter is slower; IGRPO_KERNELS=triton asks for it"
    logger.info("policy loss on %s: %s path (%s)", device, path, reason)
    return path


def interpreted() -> bool:
    """Whether Triton runs in its interpreter: TRITON_INTERPRET=1 before triton's import."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _obstacle(device: str, is_double: bool, is_interpreted: bool) -> str | None:
    if is_double:
        return "the kernels take 16-bit and 32-bit logits, not fp64"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if device != "cuda" and not is_interpreted:
        return f"tensors on {device} need Triton's interpreter (TRITON_INTERPRET=1)"
    return None
