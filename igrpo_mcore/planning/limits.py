"""The largest micro-batch, sequence and engine share with which a plan still fits."""

from collections.abc import Callable
from dataclasses import dataclass

from igrpo_mcore.config.stages import stages_of
from igrpo_mcore.planning.plan import PlannedStep, changed, planned_step

TOKEN_STEP = 256
FRACTION_STEP = 0.01


@dataclass(frozen=True)
class Limits:
    """Each alone, all else as in the recipe; none where not even the smallest value fits.

    ``sequence_tokens`` is the longest prompt with the largest ``rollout.max_completion_tokens``, at most
    the checkpoint's positions; ``smallest_fraction`` is what the engine needs to start.
    """

    micro_batch_tokens: int | None
    sequence_tokens: int | None
    memory_fraction: float | None
    smallest_fraction: float | None


def replanned(step: PlannedStep, changes: dict, world: int | None = None) -> PlannedStep:
    """The same plan with options changed, on the same ranks unless ``world`` says otherwise.

    Of another layout the refit is bounded rather than planned: many are tried.
    """
    moved = world is not None or any(name.startswith("parallel.") or name == "rollout.tp" for name in changes)
    return planned_step(
        changed(step.config, changes),
        gpu=step.gpu,
        world=world or step.layout.world,
        gpus_per_node=step.layout.gpus_per_node,
        lengths=step.lengths,
        efficiency=step.efficiency,
        exact_refit=not moved,
    )


def _largest(low: int, high: int, fits: Callable[[int], bool]) -> int | None:
    """Largest n in [low, high] that fits, where every smaller one does too."""
    if low > high or not fits(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def micro_batch_limit(step: PlannedStep) -> int | None:
    """Tokens, a multiple of 256; at most what a rank is given a mini-batch, at full length."""
    rollout, train = step.config.rollout, step.config.train
    group = sum(stage.num_samples for stage in stages_of(rollout))
    longest = rollout.longest_sequence
    whole = train.prompts_per_step // train.mini_batches * group * longest // step.layout.dp
    found = _largest(
        1,
        max(1, whole // TOKEN_STEP),
        lambda n: replanned(step, {"train.micro_batch_tokens": n * TOKEN_STEP}).fits,
    )
    return found * TOKEN_STEP if found else None


def sequence_limit(step: PlannedStep) -> int | None:
    """Tokens of the longest prompt with its completion; the prompt's budget follows where it is derived."""
    positions = step.model.hf_config.max_position_embeddings

    def options(n: int) -> dict:
        return {"rollout.max_completion_tokens": n * TOKEN_STEP}

    def fits(n: int) -> bool:
        longest = changed(step.config, options(n)).rollout.longest_sequence
        return longest <= positions and replanned(step, options(n)).fits

    found = _largest(1, positions // TOKEN_STEP, fits)
    return changed(step.config, options(found)).rollout.longest_sequence if found else None


def fraction_limits(step: PlannedStep) -> tuple[float | None, float | None]:
    """(largest, smallest) ``rollout.memory_fraction`` in hundredths with which the plan fits."""

    def plan(n: int) -> PlannedStep:
        return replanned(step, {"rollout.memory_fraction": round(n * FRACTION_STEP, 2)})

    refused = _largest(1, 99, lambda n: plan(n).memory.problem is not None) or 0
    if refused == 99:
        return None, None
    found = _largest(refused + 1, 99, lambda n: plan(n).fits)
    if found is None:
        return None, None
    return round(found * FRACTION_STEP, 2), round((refused + 1) * FRACTION_STEP, 2)


def limits(step: PlannedStep) -> Limits:
    """All of them."""
    largest, smallest = fraction_limits(step)
    return Limits(micro_batch_limit(step), sequence_limit(step), largest, smallest)
