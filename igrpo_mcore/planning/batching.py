"""Continuous batching on one engine, in decoding steps: who runs, who waits, how full the cache is."""

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

Group = tuple[int, int]


@dataclass(frozen=True)
class Request:
    """One completion of ``length`` tokens after a prompt of ``prompt``.

    Requests of the same ``group``, (stage, prompt), have the same prompt, which lies once in the cache
    (prefix cache). ``top`` is true where it earns the greatest reward.
    """

    group: Group
    prompt: int
    length: int
    top: bool = False


@dataclass(frozen=True)
class Reaction:
    """What follows from a completion: more requests, and groups whose other requests are aborted."""

    submit: Iterable[Request] = ()
    abort: Collection[Group] = ()


@dataclass(frozen=True)
class Decoding:
    """``sequences`` and ``tokens`` are means over the steps: running sequences, tokens that a step reads
    (a shared prompt once a sequence). ``recomputed`` are tokens of sequences that were preempted and
    prefilled again. ``shares`` are the stages' shares of the steps: a step belongs to those that run in it
    by the number of their sequences. ``sampled`` are all tokens generated, those of aborted ones too."""

    steps: int
    sequences: float
    tokens: float
    recomputed: int
    shares: tuple[float, ...]

    @property
    def sampled(self) -> float:
        return self.steps * self.sequences


def _nothing(_: Request) -> Reaction:
    return Reaction()


class _Batch:
    """The running sequences. ``resident`` tokens of the cache are in use, a step reads ``read``."""

    def __init__(self, besides: int) -> None:
        self.besides = besides
        self.clock = self.resident = self.read = self._admitted = 0
        self._running: dict[int, tuple[Request, int, int]] = {}  # by admission: tokens at clock 0, end
        self._ends: list[tuple[int, int]] = []
        self._groups: Counter[Group] = Counter()
        self._stages: Counter[int] = Counter()
        self.stage_steps: defaultdict[int, float] = defaultdict(float)

    def __len__(self) -> int:
        return len(self._running)

    def needs(self, request: Request, done: int) -> int:
        """Tokens of the cache that it would take now."""
        return done + self.besides + (0 if self._groups[request.group] else request.prompt)

    def admit(self, request: Request, done: int) -> None:
        """``done`` of its tokens were generated before."""
        self.resident += self.needs(request, done)
        self.read += request.prompt + done
        end = self.clock + request.length - done
        self._groups[request.group] += 1
        self._stages[request.group[0]] += 1
        self._running[self._admitted] = request, done - self.clock, end
        heapq.heappush(self._ends, (end, self._admitted))
        self._admitted += 1

    def _remove(self, number: int) -> tuple[Request, int]:
        request, base, _ = self._running.pop(number)
        done = base + self.clock
        self._groups[request.group] -= 1
        self._stages[request.group[0]] -= 1
        self.resident -= self.needs(request, done)
        self.read -= request.prompt + done
        return request, done

    def next_end(self) -> int:
        """The clock when the first of them ends."""
        while self._ends[0][1] not in self._running:
            heapq.heappop(self._ends)
        return self._ends[0][0]

    def advance(self, steps: int) -> None:
        self.clock += steps
        for stage, count in self._stages.items():
            self.stage_steps[stage] += steps * count / len(self)
        self.resident += steps * len(self)
        self.read += steps * len(self)

    def finish(self) -> Request:
        return self._remove(heapq.heappop(self._ends)[1])[0]

    def preempt(self) -> tuple[Request, int]:
        """The one that came last, with the tokens that it had generated."""
        return self._remove(next(reversed(self._running)))

    def abort(self, groups: Collection[Group]) -> None:
        for number in [n for n, (request, _, _) in self._running.items() if request.group in groups]:
            self._remove(number)


def batch(
    requests: Iterable[Request],
    room: int,
    most: int,
    besides: int = 0,
    react: Callable[[Request], Reaction] = _nothing,
) -> Decoding:
    """vLLM's scheduler: at most ``most`` sequences at once, a cache of ``room`` tokens, of which a sequence
    takes ``besides`` beside its prompt and completion.

    First come, first served; where the cache is full the sequence that came last gives its place up and
    is computed again later (``Scheduler.schedule``). ``requests`` wait from the start on; ``react`` is told
    of every completion, in the order of their ends.
    """
    waiting = deque((request, 0) for request in requests)
    running = _Batch(besides)
    recomputed, sum_sequences, sum_tokens = 0, 0.0, 0.0
    while waiting or running:
        while (
            waiting
            and len(running) < most
            and (not running or running.resident + running.needs(*waiting[0]) + len(running) + 1 <= room)
        ):
            request, done = waiting.popleft()
            recomputed += done
            running.admit(request, done)
        count = len(running)
        steps = running.next_end() - running.clock
        if count > 1:
            steps = min(steps, (room - running.resident) // count)
        if steps > 0:
            sum_sequences += steps * count
            sum_tokens += steps * (running.read + count * steps / 2)
            running.advance(steps)
        if running.next_end() == running.clock:
            reaction = react(running.finish())
            if reaction.abort:
                running.abort(reaction.abort)
                waiting = deque(w for w in waiting if w[0].group not in reaction.abort)
            waiting.extend((request, 0) for request in reaction.submit)
        elif count > 1:  # full
            waiting.appendleft(running.preempt())
    steps = running.clock
    shares = tuple(count / steps for _, count in sorted(running.stage_steps.items()))
    return Decoding(steps, sum_sequences / steps, sum_tokens / steps, recomputed, shares)
