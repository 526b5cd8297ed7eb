"""Writing checkpoints by Megatron's dist_checkpointing, in the background where that is asked for.

Every rank copies its part to the host and goes on; a thread writes the files and takes their checksums. When
all ranks have written, rank 0 gives the checkpoint its name. At most one is under way.
"""

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core import parallel_state as mpu
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelSaveStrategyWrapper
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy

from igrpo_mcore import device
from igrpo_mcore.collective import gather_objects, raise_everywhere
from igrpo_mcore.policy.checkpoint import Sharded, current_layout, rng_state
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder, Position
from igrpo_mcore.run.checksums import digest_of
from igrpo_mcore.run.kill_points import kill_point


class Published(NamedTuple):
    """A checkpoint that is there now, and the seconds since its writing began."""

    path: Path
    seconds: float


class CheckpointWriter:
    """Writes to ``folder``; without ``asynchronous`` a checkpoint is published when ``begin`` returns.

    Every call is a collective. Each raises ``UserError`` where a checkpoint cannot be written (a full disk,
    say); earlier ones are left as they are.
    """

    def __init__(self, folder: CheckpointFolder, *, asynchronous: bool = False) -> None:
        self._folder, self._asynchronous = folder, asynchronous
        self._under_way: _Write | None = None

    def begin(self, policy: Sharded, position: Position, *, waits: bool = False) -> Published | None:
        """Take the state as it is now. Ends the one under way first; returns what is published by then.

        ``waits``: this one is published as well, and needs no copy of the state: nothing goes on beside it.
        """
        background = self._asynchronous and not waits
        published = self.finish()
        folder, step, problem = self._folder, position.step, None
        _write_in_this_process()
        if dist.get_rank() == 0:
            try:
                folder.begin(step)
            except OSError as error:
                problem = str(folder.cannot_write(step, error))
        raise_everywhere(problem)
        state = {**policy.sharded_state(loading=False), "rng": rng_state()}
        try:
            with device.megatron_on_cpu():
                request = dist_checkpointing.save(
                    state,
                    str(folder.partial(step)),
                    _shared_out(),
                    async_sharded_save=True,
                    async_strategy="mcore",
                )
            self._under_way = _Write(request, position, copies=background)
        except Exception as error:
            raise folder.cannot_write(step, error) from error
        kill_point("checkpoint_copied", step)
        return published if background else self.finish()

    def poll(self) -> Published | None:
        """Publish the checkpoint under way where every rank has written its part, and say which it is."""
        if self._under_way is None or not all(gather_objects(self._under_way.done)):
            return None
        return self.finish()

    def finish(self) -> Published | None:
        """Wait for the checkpoint under way and publish it; None where there is none."""
        write, self._under_way = self._under_way, None
        if write is None:
            return None
        folder, position = self._folder, write.position
        write.join()
        problem = write.problem and str(folder.cannot_write(position.step, write.problem))
        raise_everywhere(problem or None)
        try:
            with device.megatron_on_cpu():
                for finalize in write.request.finalize_fns:
                    finalize()
            parts = gather_objects(write.digests)
            if dist.get_rank() == 0:
                digests = {name: digest for part in parts for name, digest in part.items()}
                folder.publish(position, current_layout(), digests)
        except Exception as error:
            raise folder.cannot_write(position.step, error) from error
        dist.barrier()
        return Published(folder.path(position.step), time.perf_counter() - write.began)


class _Write(threading.Thread):
    """This rank's part of one checkpoint, on its way to the disk.

    ``copies``: the tensors are this thread's own, so that training may go on; on a CPU Megatron hands over
    the parameters themselves.
    """

    def __init__(self, request: Any, position: Position, *, copies: bool) -> None:
        super().__init__(name="checkpoint", daemon=True)
        self.began, self.request, self.position = time.perf_counter(), request, position
        self.problem: Exception | None = None
        self.digests: dict[str, str] = {}
        self._buckets: list[Any] = []
        if request.async_fn is not None:  # else nothing of the state is this rank's to write
            with device.megatron_on_cpu():
                self._buckets = request.preload_fn()
            if copies and not device.has_cuda():
                self._buckets = [_copied(bucket) for bucket in self._buckets]
        self.start()

    @property
    def done(self) -> bool:
        return not self.is_alive()

    def run(self) -> None:
        try:
            if self._buckets:
                with ThreadPoolExecutor(len(self._buckets)) as pool:
                    results = list(pool.map(self._write, range(len(self._buckets))))
                _, _, found = self.request.async_fn_args  # where Megatron's finalizing looks
                found.put(dict(enumerate(results)))
        except Exception as error:
            self.problem = error
        finally:
            self._buckets = []  # the copies' memory
        kill_point("checkpoint_written", self.position.step)

    def _write(self, index: int) -> Any:
        """One file and its checksum. As Megatron's write_preloaded_data_multithread, which does not say why a
        file could not be written."""
        (transforms, *_), bucket = self.request.async_fn.args, self._buckets[index]
        _, result = filesystem_async.FileSystemWriterAsync.write_preloaded_data(
            transforms, index, bucket, results_queue=None, count_queue=None, use_fsync=True
        )
        if isinstance(result, Exception):
            raise result
        path = Path(bucket[0])
        self.digests[path.name] = digest_of(path)
        return result


def save_checkpoint(folder: CheckpointFolder, policy: Sharded, position: Position) -> Path:
    """Write and publish the checkpoint of ``position.step``; older ones than are kept go. Collective.

    Raises:
        UserError: it cannot be written (a full disk, say); earlier checkpoints are left as they are.
    """
    published = CheckpointWriter(folder).begin(policy, position)
    assert published is not None
    return published.path


def _copied(bucket: Any) -> Any:
    name, key, (parts, tensors) = bucket
    return name, key, (parts, [(item, tensor.clone()) for item, tensor in tensors])


def _shared_out() -> FullyParallelSaveStrategyWrapper:
    """Replicas of a tensor lie in one data-parallel group, whose ranks each write some of them."""
    group = mpu.get_data_parallel_group(with_context_parallel=True)
    return FullyParallelSaveStrategyWrapper(TorchDistSaveShardedStrategy(), group)


def _write_in_this_process() -> None:
    # Megatron passes results through a manager process that it spawns, which takes half a minute and dies
    # by the job's SIGTERM; a thread of this process needs a plain queue.
    filesystem_async._results_queue = queue.Queue()
