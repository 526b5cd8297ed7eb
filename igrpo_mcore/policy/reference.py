"""The frozen reference: the initial weights kept on the host and swapped in for its log-probs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from igrpo_mcore.policy.model import PolicyModel


class ReferenceWeights:
    """A copy of the policy's parameters on this rank, as they are when it is made."""

    def __init__(self, chunks: list[PolicyModel]) -> None:
        self._params = [p for chunk in chunks for p in chunk.parameters()]
        self._frozen = [self._to_host(p) for p in self._params]

    @staticmethod
    def _to_host(parameter: Tensor) -> Tensor:
        return parameter.detach().to("cpu", copy=True)

    @contextmanager
    @torch.no_grad()
    def active(self) -> Iterator[None]:
        """Inside, the policy's modules compute with the reference's weights."""
        current = [self._to_host(p) for p in self._params]
        self._copy(self._frozen)
        try:
            yield
        finally:
            self._copy(current)

    def _copy(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._params, values, strict=True):
                parameter.copy_(value)
