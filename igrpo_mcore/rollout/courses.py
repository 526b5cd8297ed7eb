"""The courses of a step, and those of evaluation."""

from igrpo_mcore.config.schema import RolloutConfig
from igrpo_mcore.config.stages import stages_of
from igrpo_mcore.rollout.course import Course, StagePlan
from igrpo_mcore.rollout.engine import Sampling
from igrpo_mcore.rollout.seeds import derive_seed, drawn
from igrpo_mcore.rollout.selection import source_of
from igrpo_mcore.types import Problem


def training_course(
    problem: Problem,
    step: int,
    position: int,
    count: int,
    rollout: RolloutConfig,
    seed: int,
    stop_token_ids: tuple[int, ...],
) -> Course:
    """All stages of a recipe for one problem (paper, section 3).

    ``position`` is the problem's place in the whole step of ``count`` problems, over all engines: seeds
    derive from (``seed``, ``step``, stage, position), so what is sampled does not depend on how problems are
    spread over engines.
    """
    stages = stages_of(rollout)
    plans = [
        StagePlan(
            stage.name,
            Sampling(stage.num_samples, rollout.temperature, stage.max_tokens, stop_token_ids),
            derive_seed(seed, step, "only" if len(stages) == 1 else stage.name, position),
        )
        for stage in stages
    ]
    choices = [
        derive_seed(seed, step, stage.name.replace("drafts", "selection"), position) for stage in stages[:-1]
    ]
    whole = not rollout.draft_early_exit or drawn(rollout.whole_prompts, seed, step, "whole", position)
    source = source_of(rollout.selection, position, count)
    return Course(problem, step, position, plans, choices, len(plans), source, whole)


def single_shot_course(problem: Problem, position: int, key: str, sampling: Sampling, seed: int) -> Course:
    """One group under q, of step 0; ``key`` sets its seeds apart from those of training."""
    plan = StagePlan(key, sampling, derive_seed(seed, key, position))
    return Course(problem, 0, position, [plan], [], 1, position)
