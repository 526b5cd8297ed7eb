"""A recipe planned on a number of GPUs: memory of each phase and time of a step."""

import copy
from dataclasses import dataclass
from typing import Any

from igrpo_mcore.config.schema import Config
from igrpo_mcore.planning.catalogue import PlannedModel, planned_model
from igrpo_mcore.planning.efficiency import Efficiency
from igrpo_mcore.planning.gpus import GPU, gpu_named
from igrpo_mcore.planning.layout import Layout, default_world, layout_of
from igrpo_mcore.planning.memory import MemoryPlan, memory_plan
from igrpo_mcore.planning.refit import bounded_refit, planned_refit
from igrpo_mcore.planning.timing import TimePlan, time_plan
from igrpo_mcore.planning.workload import Lengths, assumed_lengths

EXACT_REFIT_RANKS = 32


@dataclass(frozen=True)
class PlannedStep:
    """One step of a run as planned. ``memory`` is of the fullest rank, ``time`` of the whole step."""

    config: Config
    model: PlannedModel
    gpu: GPU
    layout: Layout
    lengths: Lengths
    efficiency: Efficiency
    memory: MemoryPlan
    time: TimePlan

    @property
    def fits(self) -> bool:
        return self.memory.fits


def planned_step(
    config: Config,
    *,
    gpu: str | GPU,
    world: int | None = None,
    gpus_per_node: int = 8,
    lengths: Lengths | None = None,
    efficiency: Efficiency | None = None,
    exact_refit: bool = True,
) -> PlannedStep:
    """Plan one step. Pure: reads the config and the model's config.json, touches no device.

    Args:
        world: ranks; none takes ``default_world``.
        lengths: mean tokens of prompts and completions, for the times; none assumes them.
        exact_refit: run the reshard planner, up to 32 ranks (its time grows with their square); else
            its buckets and bytes are bounded.

    Raises:
        UserError: unknown GPU or model, or a layout that a run would refuse.
    """
    gpu = gpu_named(gpu) if isinstance(gpu, str) else gpu
    model = planned_model(config.model.path, config.model.dtype)
    world = world or default_world(config, gpus_per_node)
    layout = layout_of(config, model.architecture, world, gpus_per_node)
    lengths = lengths or assumed_lengths(config)
    efficiency = efficiency or Efficiency()
    exact = exact_refit and world <= EXACT_REFIT_RANKS
    refit = (planned_refit if exact else bounded_refit)(model, layout, config.rollout.push_bucket_bytes)
    memory = memory_plan(model, config, layout, gpu, lengths, refit)
    time = time_plan(model, config, layout, gpu, memory.engine, lengths, refit, efficiency)
    return PlannedStep(config, model, gpu, layout, lengths, efficiency, memory, time)


def changed(config: Config, changes: dict[str, Any]) -> Config:
    """A copy of ``config`` with options set by dotted name."""
    found = copy.deepcopy(config)
    for name, value in changes.items():
        section, option = name.split(".")
        setattr(getattr(found, section), option, value)
    return found
