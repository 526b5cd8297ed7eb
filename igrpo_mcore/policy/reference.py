"""The frozen reference: the initial weights kept on the host and swapped in for its log-probs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from igrpo_mcore import device
from igrpo_mcore.policy.host_copies import HostCopies
from igrpo_mcore.policy.model import PolicyModel


class ReferenceWeights:
    """A copy of the policy's parameters on this rank, as they are when it is made."""

    def __init__(self, chunks: list[PolicyModel]) -> None:
        self._params = [p for chunk in chunks for p in chunk.parameters()]
        self._copies = HostCopies()
        self._frozen = self._take("frozen")
        device.synchronize()

    def _take(self, whose: str) -> list[Tensor]:
        return [self._copies.take((whose, i), p) for i, p in enumerate(self._params)]

    @contextmanager
    @torch.no_grad()
    def active(self) -> Iterator[None]:
        """Inside, the policy's modules compute with the reference's weights."""
        current = self._take("current")
        self._copy(self._frozen)
        try:
            yield
        finally:
            self._copy(current)

    def _copy(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._params, values, strict=True):
                parameter.copy_(value, non_blocking=True)
