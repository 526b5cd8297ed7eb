"""How a command ends that cannot go on: one sentence, one exit status, and every rank with it."""

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Iterator

from igrpo_mcore.errors import UserError
from igrpo_mcore.run.stop_signal import REQUEUE_STATUS, Stopped


@contextlib.contextmanager
def ended() -> Iterator[None]:
    """Errors a user can mend become one sentence and exit status 2, others their traceback and 1; a run that
    stopped on request leaves with ``REQUEUE_STATUS``.

    A rank that fails leaves at once, without waiting for engine threads or collectives of the
    others, so that its launcher ends the job.
    """
    try:
        yield
    except Stopped as stopped:
        from igrpo_mcore.collective import wait_for_all_ranks  # torch, which other commands do without

        if os.environ.get("RANK", "0") == "0":
            _say(f"igrpo: stopped on request after step {stopped.step}; the same command goes on from there")
        sys.stdout.flush()
        # a launcher ends the others when the first rank leaves, and rank 0 writes the page and its last
        # records long after they are done
        wait_for_all_ranks()
        os._exit(REQUEUE_STATUS)
    except UserError as error:
        _leave(str(error), 2)
    except Exception:
        _leave(traceback.format_exc(), 1)


def _leave(message: str, status: int) -> None:
    rank = os.environ.get("RANK")
    if rank not in (None, "0"):
        # every rank usually ends for the same reason: let rank 0 say it, the launcher then ends the others
        time.sleep(2)
    if message:
        _say(f"igrpo: {message}" if rank is None else f"igrpo [rank {rank}]: {message}")
    sys.stdout.flush()
    os._exit(status)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
