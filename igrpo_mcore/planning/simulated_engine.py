"""A rollout engine without a model: vLLM's continuous batching in simulated seconds.

It takes the calls of ``igrpo_mcore.rollout.engine.RolloutEngine`` that sample, so the code that schedules
real rollouts can be replayed at sizes that need GPUs. Unlike ``batching``, which plans, it makes every
decoding step, keeps its cache in blocks, prefills in chunks, and draws lengths by the seeds that it is given.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from igrpo_mcore.planning.engine import cache_tokens
from igrpo_mcore.planning.plan import PlannedStep
from igrpo_mcore.planning.rollout_time import decode_step_seconds, prefill_seconds
from igrpo_mcore.types import Completion, SampleKey

BLOCK_TOKENS = 16
"""Tokens of a block of vLLM's cache on a GPU."""


class Limit(Protocol):
    """Of ``igrpo_mcore.rollout.engine.Sampling`` what is looked at."""

    @property
    def max_tokens(self) -> int: ...


@dataclass(frozen=True)
class EngineSpeed:
    """What an engine has and takes, in tokens and seconds.

    ``room`` are tokens of its cache, of which a sequence takes ``besides`` beside its own; ``most`` the
    sequences that run at once; ``step_tokens`` those of one pass, prefill and decoding together.
    ``decode_seconds`` is given running sequences and the tokens that they read; ``prefill_seconds``, on top
    of it, tokens and the length of their prompt.
    """

    room: int
    besides: int
    most: int
    step_tokens: int
    decode_seconds: Callable[[int, int], float]
    prefill_seconds: Callable[[int, int], float]


@dataclass
class _Sequence:
    key: SampleKey
    group: int
    """The same for equal prompts."""
    prompt: int
    length: int
    text: str
    limit: int
    generated: int = 0
    to_fill: int = 0
    since: int = 0
    """The engine's step at which its decoding began; ``generated`` is what it had then."""

    @property
    def shared_blocks(self) -> int:
        """Full blocks of the prompt, which lie once for all sequences with the same one."""
        return self.prompt // BLOCK_TOKENS

    def own_tokens(self, step: int) -> int:
        return self.prompt % BLOCK_TOKENS + self.generated + step - self.since

    def completion(self) -> Completion:
        tokens = (0,) * self.length
        return Completion(tokens, (0.0,) * self.length, self.text, self.length >= self.limit)


class SimulatedEngine:
    """``draw`` gives a completion's length, at most ``max_tokens``, and its text from its prompt and seed.

    ``clock`` are the seconds of all steps so far; ``stand`` adds to them. ``steps``, ``sampled`` tokens and
    ``preempted`` sequences are counted. A prompt that begins like another shares nothing but if it is equal.
    """

    def __init__(
        self, speed: EngineSpeed, draw: Callable[[Sequence[int], int, int], tuple[int, str]]
    ) -> None:
        self._speed, self._draw = speed, draw
        self.clock, self.steps, self.sampled, self.preempted = 0.0, 0, 0, 0
        self._waiting: deque[_Sequence] = deque()
        self._filling: list[_Sequence] = []
        self._decoding: dict[SampleKey, _Sequence] = {}
        self._ends: defaultdict[int, list[tuple[_Sequence, int]]] = defaultdict(list)
        self._free = speed.room // BLOCK_TOKENS
        self._groups: dict[tuple[int, ...], int] = {}
        self._owners: Counter[int] = Counter()
        self._at_block_end: Counter[int] = Counter()  # of those decoding, by the step modulo a block
        self._read = 0

    @property
    def busy(self) -> bool:
        """Whether a submitted sample has neither been returned nor aborted."""
        return bool(self._waiting or self._filling or self._decoding)

    @property
    def free_blocks(self) -> int:
        """Blocks of the cache that no sequence has."""
        return self._free

    def stand(self, seconds: float) -> None:
        """Time passes, and the engine does nothing."""
        self.clock += seconds

    def submit(self, key: SampleKey, prompt: Sequence[int], sampling: Limit, seed: int) -> None:
        """Queue one completion."""
        length, text = self._draw(prompt, seed, sampling.max_tokens)
        group = self._groups.setdefault(tuple(prompt), len(self._groups))
        self._waiting.append(_Sequence(key, group, len(prompt), length, text, sampling.max_tokens))

    def abort(self, keys: Sequence[SampleKey]) -> None:
        """End samples that were not returned yet."""
        doomed = set(keys)
        self._waiting = deque(s for s in self._waiting if s.key not in doomed)
        for sequence in [s for s in self._filling if s.key in doomed]:
            self._filling.remove(sequence)
            self._release(sequence)
        for key in doomed & self._decoding.keys():
            self._leave(self._decoding[key])

    def step(self) -> list[tuple[SampleKey, Completion]]:
        """One pass: a token of everything that decodes, and as much prefill as fits beside."""
        before = self.preempted
        while self._at_block_end[self.steps % BLOCK_TOKENS] > self._free and len(self) > 1:
            self._preempt()
        self._free -= self._at_block_end[self.steps % BLOCK_TOKENS]
        budget = self._speed.step_tokens - len(self._decoding)
        filled = self._fill(budget, admit=self.preempted == before)
        running = len(self._decoding)
        if running:
            self.clock += self._speed.decode_seconds(running, self._read)
        if filled:
            tokens = sum(count for count, _ in filled)
            length = sum(count * whole for count, whole in filled) // tokens
            self.clock += self._speed.prefill_seconds(tokens, length)
        self.steps += 1
        self.sampled += running
        self._read += running
        ends = self._ends.pop(self.steps, ())
        ended = [s for s, since in ends if s.since == since and self._decoding.get(s.key) is s]
        for sequence in ended:
            self._leave(sequence)
        for sequence in [s for s in self._filling if not s.to_fill]:
            self._filling.remove(sequence)
            self._begin(sequence)
        return [(sequence.key, sequence.completion()) for sequence in ended]

    def __len__(self) -> int:
        return len(self._decoding) + len(self._filling)

    def _fill(self, budget: int, admit: bool) -> list[tuple[int, int]]:
        """(tokens, prompt's length) that this pass prefills, of those that were admitted and of new ones."""
        filled = []
        for sequence in self._filling:
            count = min(budget, sequence.to_fill)
            sequence.to_fill -= count
            budget -= count
            filled.append((count, sequence.prompt))
        while admit and budget > 0 and self._waiting and len(self) < self._speed.most:
            sequence = self._waiting[0]
            shared = self._owners[sequence.group] > 0
            own = self._own_blocks(sequence)
            needed = own + (0 if shared else sequence.shared_blocks)
            if len(self) and needed > self._free:
                break
            self._waiting.popleft()
            self._free -= needed
            self._owners[sequence.group] += 1
            fresh = sequence.own_tokens(sequence.since)
            sequence.to_fill = max(1, fresh if shared else fresh + sequence.shared_blocks * BLOCK_TOKENS)
            count = min(budget, sequence.to_fill)
            sequence.to_fill -= count
            budget -= count
            filled.append((count, sequence.prompt))
            self._filling.append(sequence)
        return [part for part in filled if part[0]]

    def _own_blocks(self, sequence: _Sequence) -> int:
        """Of its prompt's last, unfull block, what it has generated, and ``besides``."""
        tokens = sequence.own_tokens(self.steps if sequence.key in self._decoding else sequence.since)
        return -(-tokens // BLOCK_TOKENS) + -(-self._speed.besides // BLOCK_TOKENS)

    def _begin(self, sequence: _Sequence) -> None:
        """Its prefill has ended."""
        sequence.since = self.steps
        self._decoding[sequence.key] = sequence
        self._at_block_end[self._phase(sequence)] += 1
        self._read += sequence.prompt + sequence.generated
        end = self.steps + sequence.length - sequence.generated
        self._ends[end].append((sequence, self.steps))

    def _phase(self, sequence: _Sequence) -> int:
        """The steps, modulo a block, before which it needs another block."""
        return (sequence.since - sequence.own_tokens(sequence.since)) % BLOCK_TOKENS

    def _leave(self, sequence: _Sequence) -> None:
        """Stop decoding it."""
        done = self.steps - sequence.since
        self._at_block_end[self._phase(sequence)] -= 1
        self._read -= sequence.prompt + sequence.generated + done
        self._release(sequence)
        del self._decoding[sequence.key]
        sequence.generated += done
        sequence.since = self.steps

    def _release(self, sequence: _Sequence) -> None:
        self._free += self._own_blocks(sequence)
        self._owners[sequence.group] -= 1
        if not self._owners[sequence.group]:
            self._free += sequence.shared_blocks

    def _preempt(self) -> None:
        """The one that came last gives its place up."""
        self.preempted += 1
        if self._filling:
            sequence = self._filling.pop()
            self._release(sequence)
        else:
            sequence = self._decoding[next(reversed(self._decoding))]
            self._leave(sequence)
        self._waiting.appendleft(sequence)


def speed_of(step: PlannedStep) -> EngineSpeed:
    """What a plan takes of one of its engines."""
    model, layout, gpu, engine, efficiency = (
        step.model,
        step.layout,
        step.gpu,
        step.memory.engine,
        step.efficiency,
    )
    room, besides = cache_tokens(model.architecture, layout.rollout_tp, engine.kv_cache)
    return EngineSpeed(
        room,
        besides,
        step.config.rollout.max_concurrent_sequences,
        gpu.engine_prefill_tokens,
        lambda sequences, read: decode_step_seconds(model, sequences, read, layout, gpu, engine, efficiency),
        lambda tokens, length: prefill_seconds(model, tokens, length, layout, gpu, efficiency),
    )
