"""Read weights out of a live vLLM model, whatever its kernels made of them.

vLLM repacks linear weights at load and may drop the original, so a stale layer does not show in its
parameters. A linear layer applied to one-hot rows gives its weight back exactly (each output is one
weight plus zeros), through the very kernel that inference uses.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_ROWS = 1024


class ReadBack:
    """Reads this rank's shards of Hugging Face tensors from a vLLM model.

    Args:
        model: vLLM's model of this rank.
        local_length: Hugging Face name -> indices that this engine rank holds along the tensor's
            split dimension (fused modules stack their parts).
    """

    def __init__(self, model: Any, local_length: Callable[[str], int]) -> None:
        self._model, self._length = model, local_length
        self._rename = model.hf_to_vllm_mapper.get_rename_mapper().map_name
        self._fused = {
            part: (fused, parts)
            for fused, parts in getattr(model, "packed_modules_mapping", {}).items()
            for part in parts
            if len(parts) > 1
        }
        self._last: tuple[str, Tensor] | None = None

    def read(self, name: str, dtype: torch.dtype) -> Tensor | None:
        """This rank's part of tensor ``name``; None where the model keeps it in no readable form.

        Mamba's ``A_log`` comes back as vLLM keeps it, A = -exp(A_log).
        """
        module_name, _, attribute = self._rename(name).rpartition(".")
        parent, _, leaf = module_name.rpartition(".")
        offset, length = 0, None
        if leaf in self._fused:
            fused, parts = self._fused[leaf]
            for part in parts:
                sibling = self._length(name.replace(f".{leaf}.", f".{part}."))
                if part == leaf:
                    length = sibling
                    break
                offset += sibling
            module_name = f"{parent}.{fused}"
        try:
            module = self._model.get_submodule(module_name)
        except AttributeError:
            return None
        whole = self._whole(module_name, module, attribute, dtype)
        return whole if whole is None or length is None else whole.narrow(0, offset, length)

    def _whole(self, name: str, module: nn.Module, attribute: str, dtype: torch.dtype) -> Tensor | None:
        key = f"{name}.{attribute}"
        if self._last and self._last[0] == key:
            return self._last[1]
        value = getattr(module, attribute, None)
        if attribute == "weight" and _is_linear(module):
            value = _by_one_hot(module, _width(module), dtype)
        if not isinstance(value, Tensor):
            return None
        self._last = (key, value.detach())
        return self._last[1]


def _is_linear(module: nn.Module) -> bool:
    """Whether inference multiplies by the weight: not an embedding looked up, not a convolution."""
    weight = getattr(module, "weight", None)
    return (
        hasattr(getattr(module, "quant_method", None), "apply")
        and type(module).__name__ != "VocabParallelEmbedding"
        and not (isinstance(weight, Tensor) and weight.ndim == 3)
    )


def _width(module: nn.Module) -> int:
    for attribute in ("input_size_per_partition", "input_size", "embedding_dim"):
        if hasattr(module, attribute):
            return int(getattr(module, attribute))
    raise AttributeError(f"{type(module).__name__} does not say how wide its input is")


@torch.inference_mode()
def _by_one_hot(module: Any, width: int, dtype: torch.dtype) -> Tensor:
    """[rows, width] of a linear layer, from its outputs on the rows of the identity."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    columns: list[Tensor] = []
    for start in range(0, width, _ROWS):
        rows = min(_ROWS, width - start)
        one_hot = torch.zeros(rows, width, dtype=dtype, device=device)
        one_hot[torch.arange(rows), torch.arange(start, start + rows)] = 1
        columns.append(module.quant_method.apply(module, one_hot, None))
    return torch.cat(columns).t()
