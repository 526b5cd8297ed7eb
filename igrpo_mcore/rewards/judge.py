"""The reward ``judge``: verdicts of a model, asked for in a thread of their own while other rewards go on."""

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, NamedTuple

from igrpo_mcore.config.reward_options import JudgeConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.rewards.judge_client import JudgeClient, Use
from igrpo_mcore.rewards.messages import Verdict
from igrpo_mcore.types import Completion, Problem

END_LIMIT_S = 10.0


class Judged(NamedTuple):
    """What became of one job."""

    job: int
    verdict: Verdict
    use: Use


class Judge:
    """Jobs in, verdicts out. ``connection`` can be read whenever something has happened.

    Raises ``UserError`` where the key or the cache cannot be used.
    """

    def __init__(self, config: JudgeConfig) -> None:
        self.connection, self._wake = socket.socketpair()
        for end in (self.connection, self._wake):
            end.setblocking(False)
        self._finished: deque[Judged] = deque()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._thread.start()
        try:
            self._client = self._in_loop(_made(config, self._beat)).result()
        except BaseException:
            self._end()
            raise

    def submit(self, job: int, problem: Problem, completion: Completion) -> None:
        """Begin to ask for a verdict."""
        self._in_loop(self._judge(job, problem, completion))

    def happened(self) -> bool:
        """Whether a request has ended since the last call, well or not."""
        try:
            return bool(self.connection.recv(1 << 16))
        except BlockingIOError:
            return False

    def take(self) -> list[Judged]:
        """The verdicts that there are; does not wait."""
        found = []
        while self._finished:
            found.append(self._finished.popleft())
        return found

    def close(self) -> None:
        """Give up what is under way and end the thread; harmless when called twice."""
        if self._thread.is_alive():
            with contextlib.suppress(concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
                self._in_loop(self._give_up()).result(END_LIMIT_S)
            self._end()

    def _in_loop[T](self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(END_LIMIT_S)
        self.connection.close()
        self._wake.close()

    async def _give_up(self) -> None:
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._client.close()

    async def _judge(self, job: int, problem: Problem, completion: Completion) -> None:
        score, reason, use = await self._client.verdict(problem, completion)
        self._finished.append(Judged(job, Verdict(score, reason), use))
        self._beat()

    def _beat(self) -> None:
        with contextlib.suppress(OSError):  # full: whoever reads it has enough to wake up for
            self._wake.send(b"\0")


async def _made(config: JudgeConfig, beat: Callable[[], None]) -> JudgeClient:
    return JudgeClient(config, beat)


def check_judge(config: JudgeConfig) -> str:
    """Ask the judge once about a problem of its own; gives what it said.

    Raises:
        UserError: no verdict.
    """

    async def ask() -> tuple[float, str | None, Use]:
        client = JudgeClient(replace(config, cache=None, retries=min(config.retries, 1)))
        try:
            return await client.verdict(TRIAL, TRIED)
        finally:
            await client.close()

    score, reason, use = asyncio.run(ask())
    if reason is not None:
        raise UserError(
            f"the judge {config.model} at {config.url} gave no verdict on a trial problem: {reason}; start "
            "its server, mend reward.judge.url, model or key_variable, or set reward.judge.check=false"
        )
    return f"{config.model} gave {score:g} in {use.seconds:.1f} s"


TRIAL = Problem("trial", "What is 2 + 2?", "4")
TRIED = Completion((), (), "2 + 2 = 4", False)
