"""How many decoding steps an engine needs for its sequences, and how full its cache is meanwhile."""

import heapq
import math
from collections import deque
from dataclasses import dataclass
from functools import lru_cache

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Decoding:
    """``sequences`` and ``tokens`` are means over the steps: running sequences, tokens in the cache.
    ``recomputed`` are tokens of sequences that were preempted and prefilled again."""

    steps: int
    sequences: float
    tokens: float
    recomputed: int


def completion_lengths(sequences: int, mean: int, cap: int) -> list[int]:
    """Lengths with the given mean and up to the cap: cap · u^(cap / mean - 1) at even quantiles u.

    In an order that has nothing to do with length (the golden ratio's sequence), as requests come.
    """
    power = max(cap, mean) / mean - 1
    return [max(1, round(cap * ((i + 0.5) * _GOLDEN % 1.0) ** power)) for i in range(sequences)]


@lru_cache(maxsize=4096)
def decode(sequences: int, prompt: int, mean: int, cap: int, room: int, most: int) -> Decoding:
    """vLLM's scheduler on one engine: at most ``most`` sequences at once, a cache of ``room`` tokens.

    First come, first served; where the cache is full the sequence that came last gives its place up
    and is computed again later (``Scheduler.schedule``). All sequences wait from the start on.
    """
    waiting = deque((prompt, n) for n in completion_lengths(sequences, mean, cap))
    running: dict[int, tuple[int, int]] = {}  # by order of admission: context at clock 0, end
    ends: list[tuple[int, int]] = []
    clock = resident = recomputed = admitted = 0
    sum_sequences = sum_tokens = 0.0
    while waiting or running:
        while (
            waiting
            and len(running) < most
            and (not running or resident + waiting[0][0] + len(running) + 1 <= room)
        ):
            context, left = waiting.popleft()
            recomputed += context - prompt
            running[admitted] = (context - clock, clock + left)
            heapq.heappush(ends, (clock + left, admitted))
            admitted += 1
            resident += context
        count = len(running)
        while ends[0][1] not in running:
            heapq.heappop(ends)
        steps = ends[0][0] - clock
        if count > 1:
            steps = min(steps, (room - resident) // count)
        if steps > 0:
            sum_sequences += steps * count
            sum_tokens += steps * (resident + count * steps / 2)
            clock += steps
            resident += count * steps
        if ends[0][0] == clock:
            base, _ = running.pop(heapq.heappop(ends)[1])
            resident -= base + clock
        elif count > 1:  # full
            base, end = running.popitem()[1]
            resident -= base + clock
            waiting.appendleft((base + clock, end - clock))
    return Decoding(clock, sum_sequences / clock, sum_tokens / clock, recomputed)
