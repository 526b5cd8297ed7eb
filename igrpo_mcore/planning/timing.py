"""Seconds of a step by phase, from FLOPs, bytes, tensors and what ``Efficiency`` assumes."""

from dataclasses import asdict, dataclass

from igrpo_mcore.config.schema import Config
from igrpo_mcore.planning.catalogue import PlannedModel
from igrpo_mcore.planning.efficiency import Efficiency
from igrpo_mcore.planning.engine import EngineBytes
from igrpo_mcore.planning.gpus import GPU
from igrpo_mcore.planning.layout import Layout
from igrpo_mcore.planning.overheads import (
    checkpoint_seconds,
    push_seconds,
    reference_seconds,
    reward_seconds,
    sleep_seconds,
    start_seconds,
)
from igrpo_mcore.planning.refit import Refit
from igrpo_mcore.planning.rollout_time import rollout_seconds
from igrpo_mcore.planning.update_time import update_seconds
from igrpo_mcore.planning.workload import Lengths, rollout_stages, sampled_share


@dataclass(frozen=True)
class TimePlan:
    """Seconds of a step by phase, named as the run's ``time/<name>_s``; ``refinements`` is the last
    stage whatever its name, ``logprobs`` are the policy's and
    the reference's. ``checkpoint`` is a save's share of a step, beside ``step``; ``start`` is once a job.
    """

    drafts: float
    refinements: float
    rewards: float
    sleep: float
    logprobs: float
    update: float
    push: float
    checkpoint: float
    start: float

    @property
    def phases(self) -> dict[str, float]:
        """What ``step`` is the sum of."""
        return {name: s for name, s in asdict(self).items() if name not in ("checkpoint", "start")}

    @property
    def step(self) -> float:
        return sum(self.phases.values())

    @property
    def with_saves(self) -> float:
        """A step with its share of the checkpoints."""
        return self.step + self.checkpoint


def time_plan(
    model: PlannedModel,
    config: Config,
    layout: Layout,
    gpu: GPU,
    engine: EngineBytes,
    lengths: Lengths,
    refit: Refit,
    efficiency: Efficiency,
) -> TimePlan:
    """Seconds by phase at the given mean lengths."""
    stages = rollout_stages(config, lengths)
    *drafts, last = rollout_seconds(model, config, layout, gpu, engine, stages, efficiency)
    update, forward = update_seconds(model, config, layout, gpu, lengths, efficiency)
    # with one update old log-probs are computed only where the parity gate is due, and of a sample
    several = config.train.updates_per_step > 1
    logprobs = forward if several else forward * sampled_share(config, lengths) / config.parity.every
    if config.objective.kl_coef:
        logprobs += forward + reference_seconds(model, layout, gpu, efficiency)
    return TimePlan(
        drafts=sum(drafts),
        refinements=last,
        rewards=reward_seconds(config, layout, sum(drafts) + last, efficiency),
        sleep=sleep_seconds(config, gpu, engine, efficiency),
        logprobs=logprobs,
        update=update,
        push=push_seconds(model, config, layout, gpu, engine, refit, efficiency),
        checkpoint=checkpoint_seconds(model, config, efficiency),
        start=start_seconds(model, efficiency),
    )
