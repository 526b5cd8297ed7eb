"""What a stage asks of whatever generates tokens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from torch import Tensor

from igrpo_mcore.types import Completion, SampleKey


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    ``temperature`` 0 is greedy; ``top_p`` keeps the likeliest tokens of that mass. ``max_tokens`` is the
    budget of one completion; ``stop_token_ids`` end it earlier, and the one that did is the last of its
    ``token_ids``.
    """

    num_samples: int
    temperature: float
    max_tokens: int
    stop_token_ids: tuple[int, ...] = ()
    top_p: float = 1.0

    def stopping_at(self, stop_token_ids: tuple[int, ...]) -> "Sampling":
        """The same with other stop tokens."""
        return replace(self, stop_token_ids=stop_token_ids)


class EngineMemory(StrEnum):
    """The two parts of an engine's device memory that wake separately."""

    weights = "weights"
    kv_cache = "kv_cache"


class RolloutEngine(Protocol):
    """A sampler that lives in one or several ranks; all of its ranks make the same calls."""

    @property
    def busy(self) -> bool:
        """Whether a submitted sample has neither been returned nor aborted."""
        ...

    def submit(self, key: SampleKey, prompt: Sequence[int], sampling: Sampling, seed: int) -> None:
        """Queue one completion after ``prompt`` (token ids); ``sampling.num_samples`` is not looked at.

        What is drawn depends on prompt and seed alone, whatever else runs, up to the rounding of
        differently batched arithmetic.
        """
        ...

    def step(self) -> list[tuple[SampleKey, Completion]]:
        """One decoding step of everything that runs; the completions that it ended, the same and in the
        same order on every rank of the engine."""
        ...

    def abort(self, keys: Sequence[SampleKey]) -> None:
        """End samples that were submitted and not returned yet; they never will be."""
        ...

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Replace every weight by the given tensors, named and shaped as in the Hugging Face checkpoint.

        A rank reads only its own slices of them. What was cached of earlier weights is dropped. A
        tensor must keep its values until the call returns (do not yield the same buffer twice).
        Raises ``ValueError`` naming the weights that are missing, unknown or doubled; the engine is
        unusable after that.
        """
        ...

    def reset_prefix_cache(self) -> None:
        """Forget the keys and values of earlier prompts, so that what is sampled next does not depend on
        what was sampled before."""
        ...

    def sleep(self, *, keep_weights: bool = False) -> None:
        """Give weights and KV cache back to the device; ``keep_weights`` moves the weights to the host
        instead of discarding them. A no-op on the CPU."""
        ...

    def wake(self, what: EngineMemory) -> None:
        """Take the memory again. Weights that were kept are back as they were; other contents are
        undefined until ``load_weights``. A no-op on the CPU."""
        ...

    def close(self) -> None:
        """End the engine, and with it possibly the default process group: call it last."""
        ...


def generate(
    engine: RolloutEngine, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
) -> list[list[Completion]]:
    """``sampling.num_samples`` completions after each prompt, unscored; sample i is drawn with seed + i."""
    keys = [
        [SampleKey(0, "generate", i, j) for j in range(sampling.num_samples)] for i in range(len(prompts))
    ]
    for prompt, of_prompt, seed in zip(prompts, keys, seeds, strict=True):
        for key in of_prompt:
            engine.submit(key, prompt, sampling, seed + key.sample)
    found: dict[SampleKey, Completion] = {}
    while engine.busy:
        found.update(engine.step())
    return [[found[key] for key in of_prompt] for of_prompt in keys]
