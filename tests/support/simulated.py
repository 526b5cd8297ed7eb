"""A rollout engine, a renderer and a scorer that compute nothing and are deterministic."""

import random
from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from igrpo_mcore.rollout.engine import EngineMemory, Sampling
from igrpo_mcore.types import Completion, Problem, Prompt, SampleKey, Score


class SeededEngine:
    """Draws tokens from prompt and seed alone, one a decoding step, ``slots`` samples at a time.

    ``submissions`` and ``aborted`` remember what it was asked, ``ended`` the decoding step of each end.
    """

    def __init__(self, slots: int = 1000) -> None:
        self.slots, self.steps = slots, 0
        self.submissions: list[tuple[SampleKey, tuple[int, ...], Sampling, int, int]] = []
        self.ended: dict[SampleKey, int] = {}
        self.aborted: list[SampleKey] = []
        self._left: dict[SampleKey, int] = {}
        self._drawn: dict[SampleKey, Completion] = {}

    @property
    def busy(self) -> bool:
        return bool(self._left)

    def submit(self, key: SampleKey, prompt: Sequence[int], sampling: Sampling, seed: int) -> None:
        assert key not in self._drawn, f"{key} was submitted twice"
        self.submissions.append((key, tuple(prompt), sampling, seed, self.steps))
        rng = random.Random(f"{tuple(prompt)}/{seed}")
        tokens = tuple(rng.randrange(3, 50) for _ in range(rng.randrange(1, sampling.max_tokens + 1)))
        self._drawn[key] = Completion(tokens, tuple(-0.1 for _ in tokens), str(sum(tokens)), False)
        self._left[key] = len(tokens)

    def step(self) -> list[tuple[SampleKey, Completion]]:
        assert self._left, "a step of an idle engine"
        self.steps += 1
        running = list(self._left)[: self.slots]
        for key in running:
            self._left[key] -= 1
        done = [key for key in running if not self._left[key]]
        for key in done:
            del self._left[key]
            self.ended[key] = self.steps
        return [(key, self._drawn[key]) for key in done]

    def abort(self, keys: Sequence[SampleKey]) -> None:
        for key in keys:
            del self._left[key]
            self.aborted.append(key)

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None: ...
    def sleep(self, *, keep_weights: bool = False) -> None: ...
    def wake(self, what: EngineMemory) -> None: ...
    def close(self) -> None: ...


class AppendingRenderer:
    """q is the problem's number; q' appends the draft's tokens, at most four of them."""

    def first(self, problem: Problem) -> Prompt:
        return Prompt(problem, (int(problem.problem) + 100,))

    def second(self, problem: Problem, draft: Completion) -> tuple[Prompt, bool]:
        kept = draft.token_ids[-4:]
        return Prompt(problem, (*self.first(problem).token_ids, *kept)), len(draft.token_ids) > 4


def sum_modulo_3(problem: Problem, completion: Completion) -> Score:
    """The reward is the sum of the tokens modulo 3 (ties happen)."""
    return Score(float(sum(completion.token_ids) % 3))


class LateScorer:
    """Scores by ``reward`` when asked to wait, or ``delay`` calls of ``advance`` after the submission."""

    def __init__(self, reward: Callable[[Problem, Completion], Score] = sum_modulo_3, delay: int = 3) -> None:
        self.reward, self.delay, self.calls = reward, delay, 0
        self.submitted: dict[SampleKey, tuple[int, Score]] = {}
        self.pairs: list[tuple[Problem, Completion]] = []
        self.waited_for: list[SampleKey] = []
        self.dropped: list[SampleKey] = []

    def submit(self, key: SampleKey, problem: Problem, completion: Completion) -> None:
        self.pairs.append((problem, completion))
        self.submitted[key] = self.calls, self.reward(problem, completion)

    def advance(self) -> None:
        self.calls += 1

    def take(self, keys: Sequence[SampleKey]) -> list[Score]:
        self.waited_for += [key for key in keys if not self._there(key)]
        return [self.submitted.pop(key)[1] for key in keys]

    def ready(self) -> list[tuple[SampleKey, Score]]:
        there = [key for key in self.submitted if self._there(key)]
        return [(key, self.submitted.pop(key)[1]) for key in there]

    def drop(self, keys: Sequence[SampleKey]) -> None:
        self.dropped += keys
        for key in keys:
            del self.submitted[key]

    def _there(self, key: SampleKey) -> bool:
        return self.submitted[key][0] + self.delay <= self.calls
