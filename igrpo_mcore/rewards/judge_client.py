"""Requests to the judge's server: retried, bounded, and never fatal."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from igrpo_mcore.config.reward_options import JudgeConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.rewards.judge_cache import VerdictCache, key_of
from igrpo_mcore.rewards.judge_prompt import judge_messages
from igrpo_mcore.rewards.judge_reply import (
    MAX_BODY_BYTES,
    NoVerdictError,
    read_completion,
    read_verdict,
    seconds_to_wait,
)
from igrpo_mcore.types import Completion, Problem

LONGEST_BACKOFF_S = 30.0
PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""Statuses that may be others the next time."""
FAILURES_TO_DOWN = 8
"""Requests in a row without an answer after which the judge counts as down."""
DOWN_S = 30.0
"""Seconds for which a judge that is down is not asked: its rewards fail at once."""
LOCAL = {"127.0.0.1", "::1", "localhost"}


@dataclass
class Use:
    """What one verdict took. ``seconds`` are those of its requests, waits aside; ``tokens`` those of prompts
    and replies."""

    calls: int = 0
    cached: int = 0
    failures: int = 0
    seconds: float = 0.0
    tokens: int = 0
    cost: float = 0.0

    def metrics(self) -> dict[str, float]:
        """Each as ``judge/NAME``."""
        return {f"judge/{name}": float(value) for name, value in asdict(self).items()}


class JudgeError(Exception):
    """No verdict; the message names no key and quotes nothing of the server's.

    ``again``: another try may end otherwise, after ``wait_s`` seconds. ``gone``: the server did not answer.
    """

    def __init__(self, message: str, *, again: bool, gone: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.again, self.gone, self.wait_s = again, gone, wait_s


class JudgeClient:
    """Verdicts of ``config``'s judge, up to ``config.concurrency`` requests at once.

    Make, use and close it in one event loop. ``beat`` is called after each request. Raises ``UserError`` for
    a key that no header can carry and for a cache that cannot be written.
    """

    def __init__(self, config: JudgeConfig, beat: Callable[[], None] = lambda: None) -> None:
        self._config, self._beat = config, beat
        self._cache = VerdictCache(config.cache)
        self._slots = asyncio.Semaphore(config.concurrency)
        self._asked: dict[str, asyncio.Task[tuple[float, str | None, Use]]] = {}
        self._failed_in_a_row, self._down_until = 0, 0.0
        local = urlsplit(config.url).hostname in LOCAL
        self._http = httpx.AsyncClient(
            headers=_headers(config.key_variable),
            timeout=config.time_limit_s,
            limits=httpx.Limits(max_connections=config.concurrency),
            follow_redirects=False,  # the key goes to the server that the recipe names, and to no other
            trust_env=not local,  # a proxy of the cluster, but not for a server on this machine
        )
        for name in ("httpx", "httpcore"):  # a line a request
            logging.getLogger(name).setLevel(logging.WARNING)

    async def close(self) -> None:
        """End the connections and the keeping of verdicts."""
        await self._http.aclose()
        self._cache.close()

    async def verdict(self, problem: Problem, completion: Completion) -> tuple[float, str | None, Use]:
        """The score in [0, 1], or 0 and why there is none; and what it took. Raises nothing.

        The same text is asked for once, also while the first request for it is under way.
        """
        try:
            request = {
                "model": self._config.model,
                "messages": judge_messages(problem, completion, self._config.prompt),
                "temperature": self._config.temperature,
                "max_tokens": self._config.max_tokens,
            }
            key = key_of(request)
            known = self._cache.get(key)
            if known is not None:
                return known, None, Use(cached=1)
            if key in self._asked:
                score, reason, _ = await asyncio.shield(self._asked[key])
                return score, reason, Use(cached=int(reason is None), failures=int(reason is not None))
            task = asyncio.ensure_future(self._ask(request, key))
            self._asked[key] = task
            try:
                return await task
            finally:
                del self._asked[key]
        except Exception as error:  # of ours, since what a server does is a JudgeError
            return 0.0, f"{type(error).__name__} in the judge's client", Use(failures=1)

    async def _ask(self, request: dict[str, Any], key: str) -> tuple[float, str | None, Use]:
        use, malformed, tries = Use(), 0, 0
        while True:
            tries += 1
            try:
                async with self._slots:
                    score = await self._request_unless_down(request, use)
                self._cache.put(key, score)
                return score, None, use
            except JudgeError as error:
                malformed += isinstance(error.__cause__, NoVerdictError)
                hopeless = malformed > 1  # at temperature 0 the judge says the same again
                if not error.again or hopeless or tries > self._config.retries:
                    use.failures = 1
                    return 0.0, str(error), use
                wait = min(self._config.backoff_s * 2 ** (tries - 1), LONGEST_BACKOFF_S)
                await asyncio.sleep(max(wait, error.wait_s))
            finally:
                self._beat()

    async def _request_unless_down(self, request: dict[str, Any], use: Use) -> float:
        """A judge that did not answer several requests in a row is left alone for a while."""
        if time.monotonic() < self._down_until:
            raise JudgeError(f"the judge left {FAILURES_TO_DOWN} requests in a row unanswered", again=False)
        gone = False
        try:
            return await self._request(request, use)
        except JudgeError as error:
            gone = error.gone
            raise
        finally:
            self._failed_in_a_row = self._failed_in_a_row + 1 if gone else 0
            down = self._failed_in_a_row >= FAILURES_TO_DOWN
            self._down_until = time.monotonic() + DOWN_S if down else 0.0

    async def _request(self, request: dict[str, Any], use: Use) -> float:
        """One request, counted in ``use``. Raises ``JudgeError``."""
        use.calls += 1
        start = time.monotonic()
        limit = self._config.time_limit_s
        try:
            async with asyncio.timeout(limit):  # of the whole: a server may send a byte a second
                status, retry_after, body = await self._post(request)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise JudgeError(f"the judge gave no answer within {limit:g} s", again=True, gone=True) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            reason = f"the judge's server cannot be reached ({type(error).__name__})"
            raise JudgeError(reason, again=True, gone=True) from error
        finally:
            use.seconds += time.monotonic() - start
        if status != 200:
            hint = f": mind the key in {self._config.key_variable}" if status in (401, 403) else ""
            raise JudgeError(
                f"the judge's server answered with HTTP status {status}{hint}",
                again=status in PASSING,
                gone=status >= 500,
                wait_s=seconds_to_wait(retry_after) if status in PASSING else 0.0,
            )
        try:
            reply, prompt_tokens, completion_tokens = read_completion(body)
            use.tokens += prompt_tokens + completion_tokens
            price = self._config.prompt_price, self._config.completion_price
            use.cost += (prompt_tokens * price[0] + completion_tokens * price[1]) / 1000
            return read_verdict(reply)
        except NoVerdictError as error:
            raise JudgeError(f"the judge gave {error}", again=True) from error

    async def _post(self, request: dict[str, Any]) -> tuple[int, str, bytes]:
        url = self._config.url.rstrip("/") + "/chat/completions"
        body = bytearray()
        async with self._http.stream("POST", url, json=request) as response:
            async for part in response.aiter_raw():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    break
            return response.status_code, response.headers.get("retry-after", ""), bytes(body)


def _headers(variable: str) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity"}  # what is small on the wire is then small in memory
    key = os.environ.get(variable, "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise UserError(f"the API key in {variable} has signs that no HTTP header can carry; set it anew")
    return headers | ({"Authorization": f"Bearer {key}"} if key else {})
