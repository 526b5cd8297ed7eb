"""Which rank sends which run of which tensor to whom, made once, from metadata alone.

The train layout (TP, PP, VPP, DP) and the rollout layout (engines x vLLM TP) are both lists of
runs of Hugging Face tensors, so the plan is their intersection. Megatron-Core's
``megatron.core.resharding`` plans between two Megatron layouts; vLLM's differs from any of them
(vocabularies padded to other multiples, key-value heads replicated where ranks outnumber them,
QKV unfused), so it serves as the tests' oracle rather than as the planner.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from igrpo_mcore.weights.holdings import Holding, source_cells
from igrpo_mcore.weights.rules import HFTensor, Run
from igrpo_mcore.weights.table import Table

ALIGNMENT = 4
"""Each run starts at a multiple of this many bytes in a message, so that types can be mixed."""

ALONE_BYTES = 1 << 20
"""A run of this size is a message of its own, sent from the parameter and received into the
assembled tensor where both are contiguous; smaller ones are packed into one message a peer."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """``run`` of ``tensor`` goes from ``source`` (at ``offset`` of its ``param``) to ``dest``."""

    tensor: str
    run: Run
    source: int
    dest: int
    param: str
    offset: int

    def payload(self, tensor: HFTensor, dtype: torch.dtype) -> int:
        """Bytes in a message, alignment included."""
        size = tensor.run_bytes(self.run, dtype)
        return -(-size // ALIGNMENT) * ALIGNMENT

    def travels_alone(self, tensor: HFTensor, dtype: torch.dtype) -> bool:
        """Whether the run is a message of its own."""
        return tensor.run_bytes(self.run, dtype) >= ALONE_BYTES


@dataclass(frozen=True, slots=True)
class Arrival:
    """One tensor on its way to this rank's engine: the runs it needs and what they are made of.

    ``in_place`` is true where this rank itself holds the runs side by side, in the right order and
    type: the parameter is handed over without a copy.
    """

    tensor: str
    runs: tuple[Run, ...]
    transfers: tuple[Transfer, ...]
    in_place: bool


@dataclass
class Bucket:
    """Tensors that travel together. ``sends`` and ``receives`` are this rank's, by peer."""

    arrivals: list[Arrival] = field(default_factory=list)
    sends: dict[int, list[Transfer]] = field(default_factory=lambda: defaultdict(list))
    receives: dict[int, list[Transfer]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True)
class PushPlan:
    """This rank's buckets, and totals over all ranks in bytes of one push.

    ``bytes_minimum`` is what ranks need and do not hold themselves, each byte counted once a rank;
    ``bytes_moved`` is what the plan sends between ranks; ``bucket_peak`` is the most that any rank
    holds for one bucket (packed messages and assembled tensors), ``extra_peak`` for two buckets that
    follow each other and for what the engine keeps to the end (``HFTensor.padded_by_engine``). That is
    the bound on the memory of a push: two bucket sizes, or more where one module's share is larger
    than a bucket (vLLM loads a module from whole shards only).
    """

    buckets: tuple[Bucket, ...]
    bytes_moved: int
    bytes_minimum: int
    bucket_peak: int
    extra_peak: int
    sent_by_rank: tuple[int, ...]


Wanted = Callable[[HFTensor, int], tuple[Run, ...]]
"""(tensor, rank) -> the runs that this rank is to receive; none for nothing."""


def wanted_by_engines(rollout_tp: int) -> Wanted:
    """Each rank its engine rank's share; engine e is ranks [e x rollout_tp, (e + 1) x rollout_tp)."""
    return lambda tensor, rank: tensor.engine_runs(rank % rollout_tp, rollout_tp)


def everything(tensor: HFTensor, rank: int) -> tuple[Run, ...]:
    """Every rank every tensor whole: what an all-gather does."""
    return (tensor.whole,)


def wanted_by_writers(table: Table, held: Sequence[Mapping[str, Holding]]) -> Wanted:
    """Each tensor whole on one of the ranks that hold part of it, evenly by size."""
    holders: dict[str, set[int]] = defaultdict(set)
    for rank, params in enumerate(held):
        for holding in params.values():
            for segment in holding.segments:
                holders[segment.tensor].add(rank)
    load = [0] * len(held)
    writer: dict[str, int] = {}
    for tensor in sorted(table.tensors.values(), key=lambda t: -t.numel):
        writer[tensor.name] = min(holders[tensor.name], key=lambda r: (load[r], r))
        load[writer[tensor.name]] += tensor.numel
    return lambda tensor, rank: (tensor.whole,) if writer[tensor.name] == rank else ()


def _merge(transfers: Iterable[Transfer]) -> tuple[Transfer, ...]:
    """Join neighbours that lie side by side in the tensor and in the same parameter."""
    merged: list[Transfer] = []
    for t in transfers:
        last = merged[-1] if merged else None
        if (
            last
            and (last.source, last.param) == (t.source, t.param)
            and last.run.stop == t.run.start
            and last.offset + last.run.length == t.offset
        ):
            joined = Run(last.run.start, last.run.length + t.run.length)
            merged[-1] = Transfer(t.tensor, joined, t.source, t.dest, t.param, last.offset)
        else:
            merged.append(t)
    return tuple(merged)


class _Planner:
    def __init__(self, table: Table, held: Sequence[Mapping[str, Holding]], wire_dtype: torch.dtype) -> None:
        self.table, self.held, self.dtype = table, held, wire_dtype
        self.sent = [0] * len(held)
        self.moved = self.minimum = 0
        self.cells = source_cells(held)
        self.copied: set[tuple[int, str, Run]] = set()

    def _gather(self, tensor: HFTensor, dest: int, wanted: Run) -> list[Transfer]:
        """Sources of ``wanted`` on rank ``dest``: itself, else the holder that has sent least so far."""
        transfers = []
        for cell in self.cells.get(tensor.name, ()):
            run = cell.run.intersect(wanted)
            if not run.length:
                continue
            source = dest if dest in cell.sources else min(cell.sources, key=lambda r: (self.sent[r], r))
            param, offset = cell.sources[source]
            transfers.append(
                Transfer(tensor.name, run, source, dest, param, offset + run.start - cell.run.start)
            )
            if source != dest:
                self.sent[source] += tensor.run_bytes(run, self.dtype)
        covered = sum(t.run.length for t in transfers)
        if covered != wanted.length:
            raise RuntimeError(f"no rank holds all of {tensor.name}: {covered} of {wanted.length} indices")
        return transfers

    def arrival(self, tensor: HFTensor, dest: int, runs: tuple[Run, ...]) -> Arrival:
        transfers = _merge(t for run in runs for t in self._gather(tensor, dest, run))
        for t in transfers:
            if t.source != dest:
                self.moved += t.payload(tensor, self.dtype)
                self.minimum += tensor.run_bytes(t.run, self.dtype)
        in_place = bool(transfers) and all(
            t.source == dest
            and t.param == transfers[0].param
            and self.held[dest][t.param].dtype == tensor.sent_as(self.dtype)
            and (before is None or before.offset + before.run.length == t.offset)
            for before, t in zip((None, *transfers), transfers, strict=False)
        )
        return Arrival(tensor.name, runs, transfers, in_place)

    def add_cost(self, cost: list[int], tensor: HFTensor, arrival: Arrival, dest: int) -> None:
        """Add the bytes that ranks hold for an arrival, as ``transport`` does it, to ``cost``."""
        assembled = not arrival.in_place and is_assembled(arrival, dest)
        if assembled:
            cost[dest] += sum(tensor.run_bytes(run, self.dtype) for run in arrival.runs)
        for t in arrival.transfers:
            if t.source == dest:
                continue
            size = t.payload(tensor, self.dtype)
            alone = t.travels_alone(tensor, self.dtype)
            if not (alone and assembled and tensor.dim == 0):
                cost[dest] += size
            if not alone:
                cost[t.source] += size
            elif not self._contiguous(tensor, t) and (t.source, t.tensor, t.run) not in self.copied:
                self.copied.add((t.source, t.tensor, t.run))  # one copy serves all receivers
                cost[t.source] += size

    def _contiguous(self, tensor: HFTensor, t: Transfer) -> bool:
        """Whether the source sends from the parameter itself: rows, or all columns, in the right type."""
        holding = self.held[t.source][t.param]
        if holding.dtype != tensor.sent_as(self.dtype):
            return False
        return tensor.dim == 0 or t.run.length == sum(s.run.length for s in holding.segments)


def plan_push(
    table: Table,
    held: Sequence[Mapping[str, Holding]],
    rank: int,
    wanted: Wanted,
    bucket_bytes: int,
    wire_dtype: torch.dtype,
) -> PushPlan:
    """Plan a push. Pure: every rank computes the same schedule from the same metadata.

    A bucket closes before any rank would hold more than ``bucket_bytes`` for it; one module that is
    larger alone makes a bucket of its own.

    Args:
        held: what each rank holds, by global parameter name, index = rank.
        wanted: the runs that a rank is to receive of a tensor.
    """
    planner = _Planner(table, held, wire_dtype)
    world = len(held)
    buckets = [Bucket()]
    costs = [[0] * world]  # by bucket and rank
    kept = [0] * world
    for group in table.groups:
        cost = [0] * world
        entries: list[tuple[int, Arrival]] = []
        for name in group:
            tensor = table.tensors[name]
            for dest in range(world):
                runs = wanted(tensor, dest)
                if not runs:
                    continue
                arrival = planner.arrival(tensor, dest, runs)
                entries.append((dest, arrival))
                planner.add_cost(cost, tensor, arrival, dest)
                kept[dest] += kept_bytes(tensor, arrival, wire_dtype)
        if any(costs[-1]) and max(map(sum, zip(costs[-1], cost, strict=True))) > bucket_bytes:
            buckets.append(Bucket())
            costs.append([0] * world)
        costs[-1] = [a + b for a, b in zip(costs[-1], cost, strict=True)]
        bucket = buckets[-1]
        for dest, arrival in entries:
            if dest == rank:
                bucket.arrivals.append(arrival)
            for t in arrival.transfers:
                if t.source == t.dest:
                    continue
                if t.source == rank:
                    bucket.sends[dest].append(t)
                if dest == rank:
                    bucket.receives[t.source].append(t)
    pairs = itertools.pairwise([*costs, [0] * world])
    return PushPlan(
        tuple(buckets),
        planner.moved,
        planner.minimum,
        max(map(max, costs)),
        max(max(map(sum, zip(a, b, kept, strict=True))) for a, b in pairs),
        tuple(planner.sent),
    )


def is_assembled(arrival: Arrival, dest: int) -> bool:
    """Whether the tensor is put together in memory of its own (several parts, or a cast on this rank)."""
    return len(arrival.transfers) != 1 or arrival.transfers[0].source == dest


def kept_bytes(tensor: HFTensor, arrival: Arrival, wire_dtype: torch.dtype) -> int:
    """Bytes of an arrival that the engine keeps until the push ends."""
    if arrival.in_place or not tensor.padded_by_engine:
        return 0
    return sum(tensor.run_bytes(run, wire_dtype) for run in arrival.runs)
