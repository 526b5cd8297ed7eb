"""What vLLM's sleep of level 2 does not keep: everything of its model but the buffers.

Integers are left as they are: on a CPU some are addresses of packed weights, which a GPU does not have. So is
the KV cache: the CPU's attention multiplies what it masks of a block, so that NaN there would show without a
fault.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def _tensors(value: Any, depth: int = 0) -> Iterator[Tensor]:
    """In attributes, containers and closures of what a module holds, not of other modules."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict) and depth < 4:
        for item in value.values():
            yield from _tensors(item, depth + 1)
    elif isinstance(value, list | tuple | set) and depth < 4:
        for item in value:
            yield from _tensors(item, depth + 1)
    elif isinstance(value, functools.partial):
        yield from _tensors([value.func, value.args, value.keywords], depth + 1)
    elif callable(value) and getattr(value, "__closure__", None) and depth < 4:
        for cell in value.__closure__:
            with contextlib.suppress(ValueError):  # an empty cell
                yield from _tensors(cell.cell_contents, depth + 1)
    elif type(value).__module__.startswith("vllm") and not isinstance(value, nn.Module) and depth < 4:
        yield from _tensors(getattr(value, "__dict__", {}), depth + 1)


@torch.no_grad()
def poison(model: nn.Module) -> dict[str, int]:
    """Fill all of it that is floats with NaN; name by name, the elements that were filled.

    Buffers are what ``sleep(level=2)`` of vLLM 0.32 saves and puts back (v1/worker/gpu_worker.py).
    """
    kept = {buffer.untyped_storage().data_ptr() for buffer in model.buffers()}
    filled: dict[str, int] = {}
    for name, module in model.named_modules():
        held = {key: value for key, value in vars(module).items() if key not in ("_buffers", "_modules")}
        for key, value in {**held, **module._parameters}.items():
            if key in ("_parameters", "kv_cache") or isinstance(value, nn.Module):
                continue
            for tensor in _tensors(value):
                of_floats = tensor.numel() and tensor.is_floating_point()
                if of_floats and tensor.untyped_storage().data_ptr() not in kept:
                    tensor.data.fill_(torch.nan)
                    path = f"{name}.{key}"
                    filled[path] = filled.get(path, 0) + tensor.numel()
    return filled
