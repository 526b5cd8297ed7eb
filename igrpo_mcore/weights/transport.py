"""Carry a plan out: pack, exchange peer to peer, assemble; two buckets in flight at most."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from igrpo_mcore.weights.local import LocalShard
from igrpo_mcore.weights.reshard_plan import Arrival, Bucket, ReshardPlan, Transfer, is_assembled
from igrpo_mcore.weights.rules import HFTensor
from igrpo_mcore.weights.shard_tensor import ShardTensor
from igrpo_mcore.weights.table import Table


@dataclass
class Meter:
    """What one push took on this rank: seconds by phase, bytes held beyond the parameters."""

    exchange_s: float = 0.0
    assemble_s: float = 0.0
    bytes_sent: int = 0
    held: int = 0
    peak: int = 0

    def hold(self, size: int) -> None:
        self.held += size
        self.peak = max(self.peak, self.held)


@dataclass
class _InFlight:
    works: list
    sent: dict[int, Tensor]
    received: dict[int, Tensor]
    size: int = field(default=0)


class Transport:
    """Runs the buckets of a plan between the ranks of the default process group."""

    def __init__(
        self, table: Table, shards: Mapping[str, LocalShard], plan: ReshardPlan, dtype: torch.dtype
    ) -> None:
        self._tensors, self._shards, self._plan, self._dtype = table.tensors, shards, plan, dtype
        self._rank = dist.get_rank() if dist.is_initialized() else 0
        self._device = next(iter(shards.values())).tensor.device

    def stream(self, meter: Meter) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) in stream order; a tensor is whole or a ``ShardTensor``. Collective.

        The tensors of a bucket share memory that is freed when the receiver lets go of them.
        """
        buckets = self._plan.buckets
        coming: _InFlight | None = self._post(buckets[0], meter)
        for i, bucket in enumerate(buckets):
            started = time.perf_counter()
            current, coming = coming, None
            assert current is not None
            coming = self._post(buckets[i + 1], meter) if i + 1 < len(buckets) else None
            for work in current.works:
                work.wait()
            meter.exchange_s += time.perf_counter() - started
            started = time.perf_counter()
            ready, assembled = self._assemble(bucket, current, meter)
            meter.assemble_s += time.perf_counter() - started
            size = current.size + assembled
            del current
            while ready:  # hand over and let go, one by one
                yield ready.pop(0)
            meter.hold(-size)

    def _as_sent(self, tensor: HFTensor) -> torch.dtype:
        return torch.float32 if tensor.keep_dtype else self._dtype

    def _shape(self, tensor: HFTensor, length: int) -> tuple[int, ...]:
        return (*tensor.shape[: tensor.dim], length, *tensor.shape[tensor.dim + 1 :])

    def _message(self, transfers: list[Transfer], meter: Meter) -> Tensor:
        size = sum(t.payload(self._tensors[t.tensor], self._dtype) for t in transfers)
        meter.hold(size)
        return torch.empty(size, dtype=torch.uint8, device=self._device)

    def _parts(self, message: Tensor, transfers: list[Transfer]) -> Iterator[tuple[Transfer, Tensor]]:
        """Each transfer with its view into a message."""
        offset = 0
        for t in transfers:
            tensor = self._tensors[t.tensor]
            shape = self._shape(tensor, t.run.length)
            dtype = self._as_sent(tensor)
            size = dtype.itemsize
            for extent in shape:
                size *= extent
            yield t, message[offset : offset + size].view(dtype).view(shape)
            offset += t.payload(tensor, self._dtype)

    def _local(self, t: Transfer) -> Tensor:
        return self._shards[t.param].tensor.narrow(self._tensors[t.tensor].dim, t.offset, t.run.length)

    def _post(self, bucket: Bucket, meter: Meter) -> _InFlight:
        started = time.perf_counter()
        flight = _InFlight([], {}, {})
        operations = []
        for peer, transfers in sorted(bucket.sends.items()):
            message = self._message(transfers, meter)
            for t, part in self._parts(message, transfers):
                part.copy_(self._local(t))
            flight.sent[peer] = message
            meter.bytes_sent += message.numel()
            operations.append(dist.P2POp(dist.isend, message, peer))
        for peer, transfers in sorted(bucket.receives.items()):
            flight.received[peer] = self._message(transfers, meter)
            operations.append(dist.P2POp(dist.irecv, flight.received[peer], peer))
        flight.size = sum(m.numel() for m in (*flight.sent.values(), *flight.received.values()))
        if operations:
            flight.works = dist.batch_isend_irecv(operations)
        meter.exchange_s += time.perf_counter() - started
        return flight

    def _assemble(
        self, bucket: Bucket, flight: _InFlight, meter: Meter
    ) -> tuple[list[tuple[str, Tensor]], int]:
        arrived: dict[Transfer, Tensor] = {}
        for peer, transfers in bucket.receives.items():
            arrived.update(self._parts(flight.received[peer], transfers))
        ready, assembled = [], 0
        for arrival in bucket.arrivals:
            tensor = self._tensors[arrival.tensor]
            part = self._part(arrival, tensor, arrived)
            if not arrival.in_place and is_assembled(arrival, self._rank):
                assembled += part.numel() * part.element_size()
            ready.append((arrival.tensor, ShardTensor.of_runs(tensor.shape, part, tensor.dim, arrival.runs)))
        meter.hold(assembled)
        return ready, assembled

    def _part(self, arrival: Arrival, tensor: HFTensor, arrived: dict[Transfer, Tensor]) -> Tensor:
        """The runs that the engine wants, one after the other along the split dimension."""
        if arrival.in_place:
            first, length = arrival.transfers[0], sum(run.length for run in arrival.runs)
            return self._shards[first.param].tensor.narrow(tensor.dim, first.offset, length)
        if not is_assembled(arrival, self._rank):
            return arrived[arrival.transfers[0]]
        total = sum(run.length for run in arrival.runs)
        part = torch.empty(self._shape(tensor, total), dtype=self._as_sent(tensor), device=self._device)
        offset = 0
        for t in arrival.transfers:
            source = self._local(t) if t.source == self._rank else arrived[t]
            part.narrow(tensor.dim, offset, t.run.length).copy_(source)
            offset += t.run.length
        return part
