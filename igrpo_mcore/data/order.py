"""The order in which problems are visited: deterministic, and resumable from one integer."""

import random
from collections.abc import Sequence


class ProblemOrder:
    """An endless sequence of problem indices; epoch e is a permutation drawn from (seed, e).

    A position counts indices from the start of the run, so it is all that a checkpoint keeps:
    ``take(p, n)`` is the same whatever was taken before. With ``shuffle=False`` every epoch is file
    order. ``count`` is the number of problems, at least 1. With ``ease`` (by problem, larger is easier) each
    epoch goes from easy to hard, equals in the order that they have without.
    """

    def __init__(
        self, count: int, seed: int | str, shuffle: bool, ease: Sequence[float] | None = None
    ) -> None:
        if count < 1:
            raise ValueError("an order needs at least one problem")
        self.count = count
        self.seed = seed
        self.shuffle = shuffle
        self._ease = ease
        self._epoch = -1
        self._permutation: list[int] = []

    def take(self, start: int, count: int) -> list[int]:
        """The ``count`` indices from position ``start`` (from 0) on, over as many epochs as needed."""
        indices = []
        for position in range(start, start + count):
            epoch, offset = divmod(position, self.count)
            indices.append(self._permutation_of(epoch)[offset])
        return indices

    def _permutation_of(self, epoch: int) -> list[int]:
        if epoch != self._epoch:
            self._permutation = list(range(self.count))
            if self.shuffle:
                # A string seed is hashed by SHA-512: the same on every machine and in every process.
                random.Random(f"{self.seed}/{epoch}").shuffle(self._permutation)
            if self._ease is not None:
                ease = self._ease
                self._permutation.sort(key=lambda index: -ease[index])
            self._epoch = epoch
        return self._permutation
