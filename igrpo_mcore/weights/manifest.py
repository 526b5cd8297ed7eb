"""What a push must deliver: every tensor once, by name, shape and dtype. Checked on arrival."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from igrpo_mcore.errors import UserError
from igrpo_mcore.weights.table import Table


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor as the receiver expects it (whole shape, whatever part of it travels)."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Manifest:
    entries: dict[str, Entry]

    @classmethod
    def of(cls, table: Table, dtype: torch.dtype) -> "Manifest":
        """Every Hugging Face tensor of a table, sent as ``dtype``."""
        return cls(
            {
                name: Entry(tensor.shape, torch.float32 if tensor.keep_dtype else dtype)
                for name, tensor in table.tensors.items()
            }
        )

    def check(self, stream: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Pass ``stream`` through.

        Raises:
            UserError: while passing, on a surplus, repeated, misshapen or mistyped tensor; at the end
                on a missing one.
        """
        arrived: set[str] = set()
        for name, tensor in stream:
            entry = self.entries.get(name)
            if entry is None:
                raise UserError(
                    f"weight push: tensor {name} is not in the manifest; the weight table is wrong"
                )
            if name in arrived:
                raise UserError(f"weight push: tensor {name} arrived twice; the weight table is wrong")
            if tuple(tensor.shape) != entry.shape or tensor.dtype != entry.dtype:
                raise UserError(
                    f"weight push: tensor {name} arrived as {tensor.dtype} {tuple(tensor.shape)}, the "
                    f"manifest says {entry.dtype} {entry.shape}"
                )
            arrived.add(name)
            yield name, tensor
        missing = self.entries.keys() - arrived
        if missing:
            raise UserError(f"weight push: tensor {min(missing)} did not arrive ({len(missing)} are missing)")
