"""The schedules of a rollout on one engine, each as a run of continuous batching."""

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from igrpo_mcore.config.schema import Schedule
from igrpo_mcore.planning.batching import Decoding, Reaction, Request, batch
from igrpo_mcore.planning.decoding import outcomes

_WHOLE = math.sqrt(5)  # an irrational stride, as those of decoding.py


@dataclass(frozen=True)
class EngineStage:
    """A stage on one engine: ``samples`` completions after each prompt of ``prompt`` tokens, of ``mean``
    tokens were they ended by ``cap`` alone, ended at ``budget``."""

    samples: int
    prompt: int
    mean: int
    cap: int
    budget: int


class _Prompts:
    """``count`` prompts on their way through the stages; ``groups`` are (stage, prompt)."""

    def __init__(self, count: int, stages: tuple[EngineStage, ...], exits: float, draw: int) -> None:
        self._stages, self._exits = stages, exits
        self._drawn = [
            outcomes(count, s.samples, s.mean, s.cap, s.budget, draw * len(stages) + i)
            for i, s in enumerate(stages)
        ]
        self._finished: Counter[tuple[int, int]] = Counter()
        self._passed: set[tuple[int, int]] = set()

    def requests(self, stage: int, prompt: int) -> list[Request]:
        s = self._stages[stage]
        drawn = self._drawn[stage][prompt]
        return [Request((stage, prompt), s.prompt, length, top) for length, top in drawn]

    def passed(self, request: Request) -> bool:
        """Whether the prompt's draft is chosen with this completion: its last one, or one that none beats."""
        group = request.group
        self._finished[group] += 1
        exits = request.top and (group[1] + 0.5) * _WHOLE % 1.0 < self._exits
        due = exits or self._finished[group] == self._stages[group[0]].samples
        if not due or group in self._passed:
            return False
        self._passed.add(group)
        return True


@lru_cache(maxsize=4096)
def decode(
    schedule: Schedule,
    exits: float,
    prompts: int,
    stages: tuple[EngineStage, ...],
    room: int,
    besides: int,
    most: int,
    draw: int = 0,
) -> tuple[Decoding, ...]:
    """The rollouts of a step on an engine with ``prompts`` prompts; arguments as of ``batching.batch``.

    barrier: one run a stage. handover: one run, a prompt's next stage is submitted when its draft is chosen.
    ahead: one run, the last stage of this step's prompts, then beside it the earlier ones of as many others.
    ``exits``: the share of prompts whose first draft with the greatest reward ends their other drafts.
    """
    last = len(stages) - 1
    flow = _Prompts(prompts, stages, exits, draw)
    first_stages = range(last + 1) if schedule == Schedule.barrier else (0,)
    runs = [[r for p in range(prompts) for r in flow.requests(stage, p)] for stage in first_stages]
    if schedule == Schedule.ahead and last:
        runs[0][:0] = [r for p in range(prompts) for r in flow.requests(last, p)]
    hands_over_to = {Schedule.barrier: 0, Schedule.handover: last, Schedule.ahead: last - 1}[schedule]

    def react(request: Request) -> Reaction:
        stage, prompt = request.group
        if stage == last or not flow.passed(request):
            return Reaction()
        following = flow.requests(stage + 1, prompt) if stage < hands_over_to else []
        return Reaction(following, (request.group,))

    return tuple(batch(run, room, most, besides, react) for run in runs)
