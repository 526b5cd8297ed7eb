"""Rewards run once an engine: its first rank scores, the others receive."""

from collections.abc import Sequence

import torch.distributed as dist

from igrpo_mcore.rollout.stages import Scorer
from igrpo_mcore.types import Completion, Problem, Score


class SharedScorer:
    """A scorer for all ranks of one engine, which must build identical stage-2 prompts.

    ``scorer`` is called on the group's first rank only (other ranks may pass ``None``) and its
    scores are broadcast over ``group``; what it raises is raised on every rank.
    """

    def __init__(self, scorer: Scorer | None, group: dist.ProcessGroup):
        self._scorer = scorer
        self._group = group
        self._source = dist.get_process_group_ranks(group)[0]

    def score(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Score]:
        outcome: list[list[Score] | Exception | None] = [None]
        if dist.get_rank() == self._source:
            assert self._scorer is not None, "the engine's first rank needs a scorer"
            try:
                outcome = [self._scorer.score(problems, completions)]
            except Exception as error:
                outcome = [error]
        if dist.get_world_size(self._group) > 1:
            dist.broadcast_object_list(outcome, src=self._source, group=self._group)
        (result,) = outcome
        if isinstance(result, Exception):
            raise result
        assert result is not None
        return result
