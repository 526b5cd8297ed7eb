"""Element types by the names that recipes and configs give them."""

import torch


def torch_dtype(name: str) -> torch.dtype:
    """torch's type called ``float32`` or ``bfloat16``; its ``itemsize`` is the bytes of one number."""
    return getattr(torch, name)
