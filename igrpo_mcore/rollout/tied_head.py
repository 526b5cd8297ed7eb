"""Heads that share the embedding's weight, kept true when vLLM reloads its weights in place.

vLLM's layerwise reload (0.32) processes only modules that were given a weight by name, and a tied head
never is: what it made of the weight itself (on the CPU a packed copy, ``cpu_linear``) stays what it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class TiedHead:
    """``head`` computes with the weight of ``embedding``; both are modules of a live vLLM model."""

    head: nn.Module
    embedding: nn.Module

    def refresh(self) -> None:
        """Tie again and make anew what the head keeps of the weight; to be called after each reload."""
        self.head.weight = self.embedding.weight
        self.head.quant_method.process_weights_after_loading(self.head)  # type: ignore[union-attr,operator]


def tied_heads(model: nn.Module) -> Sequence[TiedHead]:
    """Modules that hold a weight of an earlier module, each with that module."""
    owners: dict[int, nn.Module] = {}
    found = []
    for module in model.modules():
        weight = module._parameters.get("weight")
        if weight is None or weight.numel() == 0:  # vLLM's CPU build drops weights that it has packed
            continue
        owner = owners.setdefault(id(weight), module)
        if owner is not module:
            found.append(TiedHead(module, owner))
    return found
