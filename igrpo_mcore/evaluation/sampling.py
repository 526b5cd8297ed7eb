"""Single-shot completions of a set of problems, batch by batch."""

from collections.abc import Iterator, Sequence

from igrpo_mcore.config.schema import Config
from igrpo_mcore.rollout.engine import Sampling
from igrpo_mcore.rollout.sampler import Sampler
from igrpo_mcore.types import Group, Problem

KEY = "eval"
"""Sets the seeds of the held-out problems apart from those of training, in a run and in ``igrpo eval``."""


def sampling_of(config: Config, samples: int) -> Sampling:
    """How an evaluation samples; its stop tokens are the sampler's."""
    options = config.eval
    length = config.rollout.max_completion_tokens
    return Sampling(samples, options.temperature, length, top_p=options.top_p)


def problems_a_batch(config: Config, samples: int) -> int:
    """Whole problems of ``eval.batch_completions``; it does not depend on the layout."""
    return max(1, config.eval.batch_completions // samples)


def batches(
    sampler: Sampler, problems: Sequence[Problem], sampling: Sampling, key: str, batch: int, done: int = 0
) -> Iterator[list[Group]]:
    """The groups of each batch of ``batch`` problems after the first ``done``. Every turn is a collective.

    A problem's seed derives from ``key`` and its place in ``problems``, and its batch is the same wherever an
    evaluation goes on, so what is sampled is too.
    """
    for first in range(done, len(problems), batch):
        yield sampler.single_shot(problems[first : first + batch], sampling, key, first)
