"""Values and combinations of options that cannot work, refused before anything starts."""

import math
from collections.abc import Iterator
from dataclasses import fields

from igrpo_mcore.config.schema import Config, Selection
from igrpo_mcore.config.stages import stages_of
from igrpo_mcore.errors import UserError

LONGEST_TIME_LIMIT_S = 86400.0
LARGEST_SEED = 2**31 - 1
"""Seeds of numpy end at 2**32 and ranks add to theirs."""


def _at_least(config: Config, minimum: float, *names: str) -> None:
    for name in names:
        section, field = name.split(".")
        value = getattr(getattr(config, section), field)
        if value is not None and not value >= minimum:
            raise UserError(f"{name}={value} must be at least {minimum:g}")


def _above(config: Config, bound: float, *names: str) -> None:
    for name in names:
        section, field = name.split(".")
        value = getattr(getattr(config, section), field)
        if value is not None and not value > bound:
            raise UserError(f"{name}={value} must be above {bound:g}")


def _at_most(config: Config, maximum: float, *names: str) -> None:
    for name in names:
        section, field = name.split(".")
        value = getattr(getattr(config, section), field)
        if not value <= maximum:
            raise UserError(f"{name}={value} must be at most {maximum:.10g}")


def _finite(config: Config) -> None:
    for name, value in _floats(config):
        if not math.isfinite(value):
            section, option, *of_a_table = name.split(".", 2)
            default = 1.0 if of_a_table else getattr(getattr(Config(), section), option)
            would_do = "null" if default is None else default
            raise UserError(f"{name}={value} must be a finite number, for example {would_do}")


def _floats(config: Config) -> Iterator[tuple[str, float]]:
    """Every option that is a float, by its dotted name."""
    for section in fields(config):
        options = getattr(config, section.name)
        for option in fields(options):
            value = getattr(options, option.name)
            for name, number in value.items() if isinstance(value, dict) else [("", value)]:
                if isinstance(number, float):
                    yield f"{section.name}.{option.name}{name and '.'}{name}", number


def validate(config: Config) -> None:
    """Check values and combinations that need neither the model nor the world.

    Raises:
        UserError: naming the field and a value that would do.
    """
    _finite(config)
    _at_least(config, 1, "parallel.tp", "parallel.pp", "parallel.cp", "parallel.ep", "parallel.vpp")
    _at_least(config, 1, "parallel.dp", "rollout.tp", "train.steps", "train.prompts_per_step")
    _at_least(config, 1, "train.mini_batches", "train.micro_batch_tokens", "parity.every", "reward.workers")
    _at_least(config, 1, "rollout.num_refinements", "rollout.max_prompt_tokens", "rollout.draft_rounds")
    _at_least(config, 1, "rollout.max_completion_tokens", "rollout.max_concurrent_sequences")
    _at_least(config, 1, "rollout.push_bucket_bytes", "rollout.kv_cache_bytes")
    _at_least(config, 1, "train.passes", "checkpoint.keep", "data.size", "eval.problems", "eval.samples")
    _at_least(config, 1, "eval.batch_completions")
    _at_least(config, 0, "data.seed", "eval.temperature")
    _above(config, 0, "eval.top_p")
    _at_most(config, 1, "eval.top_p")
    _at_most(config, LARGEST_SEED, "data.seed")
    _at_least(config, 0, "checkpoint.every", "eval.every")
    _at_least(config, 0, "rollout.num_drafts", "objective.draft_weight", "train.seed")
    _at_least(config, 0, "optimizer.weight_decay", "optimizer.warmup_ratio", "run.samples_per_step")
    _at_least(config, 0, "optimizer.beta1", "optimizer.beta2")
    _above(config, 0, "rollout.temperature", "optimizer.lr", "optimizer.grad_clip", "reward.time_limit_s")
    _above(config, 0, "optimizer.eps", "parity.mean_threshold", "parity.quantile_threshold")
    _above(config, 0, "run.hang_minutes")
    # below 1 tokens on which sampler and trainer agree would lose weight as well
    _at_least(config, 1, "objective.correction_cap")
    _at_most(config, LONGEST_TIME_LIMIT_S, "reward.time_limit_s")
    _at_most(config, LARGEST_SEED, "train.seed")

    rollout, objective, train = config.rollout, config.objective, config.train
    if rollout.selection != Selection.none and rollout.num_drafts < 1:
        raise UserError(
            f"rollout.selection={rollout.selection} chooses among drafts but rollout.num_drafts=0; "
            "set rollout.num_drafts to 1 or more, or rollout.selection=none"
        )
    if stages_of(rollout)[-1].num_samples < 2:
        raise UserError(
            "a group of one completion has no advantage; set rollout.num_refinements to 2 or more"
        )
    if rollout.selection == Selection.none and objective.draft_weight:
        raise UserError("objective.draft_weight needs drafts; set rollout.selection=best or draft_weight=0")
    budget = rollout.max_refinement_prompt_tokens
    if budget is not None and budget < rollout.max_prompt_tokens:
        raise UserError(
            f"rollout.max_refinement_prompt_tokens={budget} must be at least rollout.max_prompt_tokens="
            f"{rollout.max_prompt_tokens}: a draft that is left out leaves the bare prompt"
        )
    for name in ("beta1", "beta2"):
        if not getattr(config.optimizer, name) < 1:
            raise UserError(
                f"optimizer.{name}={getattr(config.optimizer, name)} must lie in [0, 1), for example 0.9"
            )
    if not 0 <= config.optimizer.warmup_ratio < 1:
        raise UserError(f"optimizer.warmup_ratio={config.optimizer.warmup_ratio} must lie in [0, 1)")
    if not 0 <= config.optimizer.min_lr_ratio <= 1:
        raise UserError(f"optimizer.min_lr_ratio={config.optimizer.min_lr_ratio} must lie in [0, 1]")
    if not 0 < rollout.memory_fraction < 1:
        raise UserError(f"rollout.memory_fraction={rollout.memory_fraction} must lie between 0 and 1")
    if train.prompts_per_step % train.mini_batches:
        raise UserError(
            f"train.mini_batches={train.mini_batches} does not divide train.prompts_per_step="
            f"{train.prompts_per_step}; choose a divisor"
        )
    try:
        objective.check()
    except ValueError as error:
        raise UserError(f"objective.{error}") from error
    if "{problem}" not in config.eval.template:
        raise UserError(
            f"eval.template={config.eval.template!r} lacks {{problem}}, where the problem's text goes; add it"
        )
    for field in ("{problem}", "{draft}"):
        if field not in rollout.draft_template:
            raise UserError(
                f"rollout.draft_template lacks {field}; both {{problem}} and {{draft}} must appear"
            )
    if not any(config.reward.weights.values()):
        raise UserError(
            "reward.weights gives no reward a weight; set for example reward.weights.accuracy=1.0"
        )
