"""An engine without a model, for runs that are about everything else: kills, journals, checkpoints.

What it draws depends on the prompt, the seed and every bit of the weights that were pushed, so a run whose
weights differ in one bit samples other tokens from then on.
"""

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from igrpo_mcore.rollout.engine import EngineMemory, Sampling
from igrpo_mcore.run.progress import beat
from igrpo_mcore.types import Completion, SampleKey


class SimulatedEngine:
    """One engine a rank; takes the arguments of ``VLLMEngine``. One token a decoding step; lengths vary."""

    is_first_rank = True
    model = None

    def __init__(self, path: str, rollout: Any, dtype: Any, tokenizer: Any, **_: Any) -> None:
        self.index, self.count, self._tokenizer = dist.get_rank(), dist.get_world_size(), tokenizer
        self.group = [dist.new_group([rank]) for rank in range(self.count)][self.index]
        self._weights = b""
        self._left: dict[SampleKey, int] = {}
        self._drawn: dict[SampleKey, Completion] = {}

    @property
    def busy(self) -> bool:
        return bool(self._left)

    def submit(self, key: SampleKey, prompt: Sequence[int], sampling: Sampling, seed: int) -> None:
        rng = random.Random(f"{tuple(prompt)}/{seed}/{self._weights.hex()}")
        length = rng.randrange(1, sampling.max_tokens + 1)
        tokens = tuple(rng.randrange(4, len(self._tokenizer)) for _ in range(length))
        logprobs = tuple(torch.tensor([-4 * rng.random() for _ in tokens]).tolist())
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        self._drawn[key], self._left[key] = Completion(tokens, logprobs, text, False), length

    def step(self) -> list[tuple[SampleKey, Completion]]:
        beat()
        self._left = {key: left - 1 for key, left in self._left.items()}
        done = [key for key, left in self._left.items() if not left]
        for key in done:
            del self._left[key]
        return [(key, self._drawn.pop(key)) for key in done]

    def abort(self, keys: Sequence[SampleKey]) -> None:
        for key in keys:
            del self._left[key], self._drawn[key]

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        digest = hashlib.blake2b()
        for name, tensor in named_tensors:
            digest.update(name.encode())
            digest.update(tensor.detach().contiguous().view(torch.uint8).numpy())
        self._weights = digest.digest()

    def sleep(self, *, keep_weights: bool = False) -> None: ...
    def wake(self, what: EngineMemory) -> None: ...

    def close(self) -> None:
        dist.destroy_process_group()
