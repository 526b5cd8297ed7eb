"""Push the policy's weights into the rollout engine of the same ranks."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from igrpo_mcore.config.schema import RolloutConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.families import table_for
from igrpo_mcore.weights.finite import check_finite
from igrpo_mcore.weights.holdings import allgather_bytes, exchange_holdings, source_cells
from igrpo_mcore.weights.local import locate_shards
from igrpo_mcore.weights.push_plan import plan_push, wanted_by_engines
from igrpo_mcore.weights.rules import HFTensor, Run
from igrpo_mcore.weights.transport import Meter, Transport


class WeightSink(Protocol):
    """What a push needs of a rollout engine."""

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None: ...


@dataclass(frozen=True)
class PushStats:
    """One push. Bytes are of all ranks together, except ``peak_extra_bytes`` (this rank).

    ``bytes_planned_minimum`` is what engines need and their ranks do not hold, ``bytes_allgather``
    what sending every tensor to every rank would move. ``peak_extra_bytes`` is what the push held at
    most beyond the parameters themselves, at most the plan's ``extra_peak``. ``exchange_s`` packs and
    waits for messages, ``assemble_s`` puts tensors together, ``load_s`` is the engine's own loading.
    """

    bytes_moved: int
    bytes_planned_minimum: int
    bytes_allgather: int
    peak_extra_bytes: int
    exchange_s: float
    assemble_s: float
    load_s: float

    def metrics(self) -> dict[str, float | None]:
        """By the names of docs/metrics.md."""
        return {
            "push/bytes_moved": self.bytes_moved,
            "push/bytes_planned_minimum": self.bytes_planned_minimum,
            "push/bytes_allgather": self.bytes_allgather,
            "push/peak_extra_bytes": self.peak_extra_bytes,
            "time/push_exchange_s": self.exchange_s,
            "time/push_assemble_s": self.assemble_s,
            "time/push_load_s": self.load_s,
        }


class Pusher:
    """Takes the weights from the train layout to the engines'; planned once, pushed often.

    Args:
        chunks: the policy's model chunks of this rank.
        hf_config: transformers config that both sides are built from.
        rollout_tp: tensor-parallel ranks an engine; engine e is ranks [e x tp, (e + 1) x tp).
        bucket_bytes: most that a rank holds for one bucket, unless a single module's share is larger;
            two are in flight.
        dtype: type the tensors are sent in (the engine's); a few stay float32.

    Raises:
        UserError: on every rank, where the policy and the config's weight table disagree.
    """

    def __init__(
        self,
        chunks: Sequence[nn.Module],
        hf_config: Any,
        *,
        rollout_tp: int,
        bucket_bytes: int = RolloutConfig.push_bucket_bytes,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self.table = table_for(hf_config)
        self.shards = locate_shards(chunks, self.table)
        held = exchange_holdings(self.shards)
        rank = dist.get_rank() if dist.is_initialized() else 0
        self.rollout_tp, self.rank, self.dtype = rollout_tp, rank, dtype
        if len(held) % rollout_tp:
            raise UserError(
                f"rollout.tp={rollout_tp} does not divide the {len(held)} ranks; change rollout.tp"
            )
        self.plan = plan_push(self.table, held, rank, wanted_by_engines(rollout_tp), bucket_bytes, dtype)
        self.cells = source_cells(held)
        self._allgather = allgather_bytes(self.table, self.cells, len(held), dtype)
        self._bucket_bytes = bucket_bytes
        self._transport = Transport(self.table, self.shards, self.plan, dtype)

    def engine_runs(self, tensor: HFTensor) -> tuple[Run, ...]:
        """What this rank of its engine holds of a tensor."""
        return tensor.engine_runs(self.rank % self.rollout_tp, self.rollout_tp)

    def describe(self) -> str:
        """One line: what each push moves, in how many pieces, and what it holds."""
        plan = self.plan
        line = (
            f"each push: {len(self.table.tensors)} tensors in {_count(len(plan.buckets), 'bucket')}, "
            f"{_size(plan.bytes_moved)} between ranks (least possible {_size(plan.bytes_minimum)}, "
            f"by all-gather {_size(self._allgather)}), "
            f"{_size(plan.extra_peak)} a rank at most beside the weights"
        )
        if plan.extra_peak > 2 * self._bucket_bytes:
            line += (
                f": one module is larger than rollout.push_bucket_bytes={self._bucket_bytes} "
                "and cannot be divided"
            )
        return line

    def stream(self, meter: Meter | None = None) -> Iterator[tuple[str, Tensor]]:
        """What a push hands to this rank's engine: each tensor of the table once. Collective."""
        return self._transport.stream(meter or Meter())

    @torch.no_grad()
    def push(self, engine: WeightSink) -> PushStats:
        """Stream every weight into ``engine``. Collective over all ranks.

        Raises:
            UserError: on every rank, where a weight is not finite: the engine keeps those that it has; or the
                engine stopped reading before the end.
        """
        check_finite({name: shard.tensor for name, shard in self.shards.items()})
        started = time.perf_counter()
        meter = Meter()
        finished = False

        def stream():
            nonlocal finished
            yield from self.stream(meter)
            finished = True

        engine.load_weights(stream())
        if not finished:
            raise UserError("weight push: the engine stopped reading before the last tensor")
        exchange_s, assemble_s = meter.exchange.seconds, meter.assemble.seconds  # waits for the device
        total = time.perf_counter() - started
        return PushStats(
            self.plan.bytes_moved,
            self.plan.bytes_minimum,
            self._allgather,
            meter.peak,
            exchange_s,
            assemble_s,
            total - exchange_s - assemble_s,
        )


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
