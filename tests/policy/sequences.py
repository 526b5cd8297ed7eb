"""A fixed batch of training sequences, the same in the workers and in the transformers oracle."""

import torch

from igrpo_mcore.types import TrainingSequence

VOCABULARY = 104


def training_batch(groups: int = 3, size: int = 3, seed: int = 5) -> list[TrainingSequence]:
    """Prompts and completions of uneven lengths with advantages of both signs and one of zero."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, VOCABULARY, (count,), generator=generator).tolist())

    batch = []
    for group in range(groups):
        prompt = tokens(5 + 3 * group)
        for member in range(size):
            length = 2 + 4 * member + group
            advantage = [1.25, -0.75, 0.0][member % 3]
            batch.append(
                TrainingSequence(
                    prompt, tokens(length), (0.0,) * length, advantage, 1.0 / (groups * size * length)
                )
            )
    return batch


def shift(index: int) -> float:
    """log ratio of a sequence to its old log-probs: below, at and above the clip, for both signs of Â."""
    return 0.3 * (((index + index // 3) % 3) - 1)
