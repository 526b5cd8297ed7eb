"""Carry a plan out: pack, exchange peer to peer, assemble; two buckets in flight at most."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from igrpo_mcore.device import Stopwatch
from igrpo_mcore.weights.local import LocalShard
from igrpo_mcore.weights.push_plan import Arrival, Bucket, PushPlan, Transfer, is_assembled, kept_bytes
from igrpo_mcore.weights.rules import HFTensor, Run
from igrpo_mcore.weights.shard_tensor import ShardTensor
from igrpo_mcore.weights.table import Table


@dataclass
class Meter:
    """What one push took on this rank: time by phase, bytes held beyond the parameters."""

    exchange: Stopwatch = field(default_factory=Stopwatch)
    assemble: Stopwatch = field(default_factory=Stopwatch)
    held: int = 0
    peak: int = 0


@dataclass
class _InFlight:
    """A bucket under way: its pending messages and the memory that it holds on this rank."""

    works: list = field(default_factory=list)
    sent: list[Tensor] = field(default_factory=list)
    arrived: dict[Transfer, Tensor] = field(default_factory=dict)
    parts: dict[str, Tensor] = field(default_factory=dict)
    size: int = 0


class Transport:
    """Runs the buckets of a plan between the ranks of the default process group; all make one together."""

    def __init__(
        self, table: Table, shards: Mapping[str, LocalShard], plan: PushPlan, dtype: torch.dtype
    ) -> None:
        self._tensors, self._shards, self._plan, self._dtype = table.tensors, shards, plan, dtype
        self._rank = dist.get_rank() if dist.is_initialized() else 0
        self._device = next(iter(shards.values())).tensor.device
        if dist.is_initialized():
            # NCCL makes a group's communicator in its first operation and waits for every rank there; one
            # without a message in the first bucket would not come (torch's note on batch_isend_irecv)
            dist.all_reduce(torch.zeros(1, device=self._device))

    def stream(self, meter: Meter) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) in stream order; a tensor is whole or a ``ShardTensor``. Collective.

        The tensors of a bucket share memory that is freed when the receiver lets go of them.
        """
        buckets = self._plan.buckets
        coming: _InFlight | None = self._post(buckets[0], meter)
        before = 0
        for i, bucket in enumerate(buckets):
            current, coming = coming or self._post(bucket, meter), None
            with meter.exchange:
                for work in current.works:
                    work.wait()
            with meter.assemble:
                ready = [(a.tensor, self._finish(a, current)) for a in bucket.arrivals]
            size = current.size - sum(
                kept_bytes(self._tensors[a.tensor], a, self._dtype) for a in bucket.arrivals
            )
            del current
            while ready:  # hand over and let go, one by one
                yield ready.pop(0)
                if coming is None and i + 1 < len(buckets):
                    # a receiver's loop lets go of the last bucket when it has taken from this one
                    meter.held, before = meter.held - before, 0
                    coming = self._post(buckets[i + 1], meter)
            meter.held, before = meter.held - before, size

    def _shape(self, tensor: HFTensor, length: int) -> tuple[int, ...]:
        return (*tensor.shape[: tensor.dim], length, *tensor.shape[tensor.dim + 1 :])

    def _empty(self, flight: _InFlight, shape: tuple[int, ...], dtype: torch.dtype, meter: Meter) -> Tensor:
        made = torch.empty(shape, dtype=dtype, device=self._device)
        self._hold(flight, made, meter)
        return made

    def _hold(self, flight: _InFlight, tensor: Tensor, meter: Meter) -> None:
        size = tensor.numel() * tensor.element_size()
        flight.size += size
        meter.held += size
        meter.peak = max(meter.peak, meter.held)

    def _packed(self, transfers: list[Transfer]) -> list[Transfer]:
        return [t for t in transfers if not t.travels_alone(self._tensors[t.tensor], self._dtype)]

    def _alone(self, transfers: list[Transfer]) -> list[Transfer]:
        return [t for t in transfers if t.travels_alone(self._tensors[t.tensor], self._dtype)]

    def _message(self, flight: _InFlight, transfers: list[Transfer], meter: Meter) -> Tensor:
        size = sum(t.payload(self._tensors[t.tensor], self._dtype) for t in transfers)
        return self._empty(flight, (size,), torch.uint8, meter)

    def _views(self, message: Tensor, transfers: list[Transfer]) -> Iterator[tuple[Transfer, Tensor]]:
        """Each transfer with its view into a packed message."""
        offset = 0
        for t in transfers:
            tensor = self._tensors[t.tensor]
            shape, dtype = self._shape(tensor, t.run.length), tensor.sent_as(self._dtype)
            size = math.prod(shape) * dtype.itemsize
            yield t, message[offset : offset + size].view(dtype).view(shape)
            offset += t.payload(tensor, self._dtype)

    def _local(self, t: Transfer) -> Tensor:
        return self._shards[t.param].tensor.narrow(self._tensors[t.tensor].dim, t.offset, t.run.length)

    def _post(self, bucket: Bucket, meter: Meter) -> _InFlight:
        """Start a bucket's messages: to and from each peer the packed one first, then the large ones."""
        flight = _InFlight()
        with meter.exchange:
            operations = self._sends(bucket, flight, meter) + self._receives(bucket, flight, meter)
            if operations:
                flight.works = dist.batch_isend_irecv(operations)
        return flight

    def _sends(self, bucket: Bucket, flight: _InFlight, meter: Meter) -> list[dist.P2POp]:
        operations = []
        copies: dict[tuple[str, Run], Tensor] = {}
        for peer, transfers in sorted(bucket.sends.items()):
            if packed := self._packed(transfers):
                message = self._message(flight, packed, meter)
                for t, view in self._views(message, packed):
                    view.copy_(self._local(t))
                flight.sent.append(message)
                operations.append(dist.P2POp(dist.isend, message, peer))
            for t in self._alone(transfers):
                if (t.tensor, t.run) not in copies:
                    local = self._local(t)
                    value = local.to(self._tensors[t.tensor].sent_as(self._dtype)).contiguous()
                    copies[t.tensor, t.run] = value
                    if value.data_ptr() != local.data_ptr():
                        self._hold(flight, value, meter)
                operations.append(dist.P2POp(dist.isend, copies[t.tensor, t.run], peer))
        flight.sent += copies.values()
        return operations

    def _receives(self, bucket: Bucket, flight: _InFlight, meter: Meter) -> list[dist.P2POp]:
        place: dict[Transfer, Tensor] = {}
        for arrival in bucket.arrivals:
            if arrival.in_place or not is_assembled(arrival, self._rank):
                continue
            tensor = self._tensors[arrival.tensor]
            shape = self._shape(tensor, sum(run.length for run in arrival.runs))
            part = self._empty(flight, shape, tensor.sent_as(self._dtype), meter)
            flight.parts[arrival.tensor] = part
            offset = 0
            for t in arrival.transfers:
                place[t] = part.narrow(tensor.dim, offset, t.run.length)
                offset += t.run.length
        operations = []
        for peer, transfers in sorted(bucket.receives.items()):
            if packed := self._packed(transfers):
                message = self._message(flight, packed, meter)
                flight.arrived.update(self._views(message, packed))
                operations.append(dist.P2POp(dist.irecv, message, peer))
            for t in self._alone(transfers):
                tensor = self._tensors[t.tensor]
                value = place.get(t)
                if value is None or tensor.dim != 0:
                    shape = self._shape(tensor, t.run.length)
                    value = self._empty(flight, shape, tensor.sent_as(self._dtype), meter)
                flight.arrived[t] = value
                operations.append(dist.P2POp(dist.irecv, value, peer))
        return operations

    def _finish(self, arrival: Arrival, flight: _InFlight) -> Tensor:
        """The runs that the engine wants, one after the other, as a tensor of full shape."""
        tensor = self._tensors[arrival.tensor]
        if arrival.in_place:
            first, length = arrival.transfers[0], sum(run.length for run in arrival.runs)
            part = self._shards[first.param].tensor.narrow(tensor.dim, first.offset, length)
        elif arrival.tensor in flight.parts:
            part = flight.parts[arrival.tensor]
            offset = 0
            for t in arrival.transfers:
                source = self._local(t) if t.source == self._rank else flight.arrived[t]
                place = part.narrow(tensor.dim, offset, t.run.length)
                if source.data_ptr() != place.data_ptr():
                    place.copy_(source)
                offset += t.run.length
        else:
            part = flight.arrived[arrival.transfers[0]]
        return ShardTensor.of_runs(tensor.shape, part, tensor.dim, arrival.runs)
