"""Values and combinations of options that cannot work, refused before anything starts."""

import math
import re
from collections.abc import Iterator
from dataclasses import fields

from igrpo_mcore.config.reward_checks import check_rewards
from igrpo_mcore.config.schema import (
    Advantage,
    AdvantageStd,
    Config,
    Correction,
    Curriculum,
    Schedule,
    Selection,
)
from igrpo_mcore.config.stages import stages_of
from igrpo_mcore.errors import UserError

LONGEST_TIME_LIMIT_S = 86400.0
LARGEST_SEED = 2**31 - 1
"""Seeds of numpy end at 2**32 and ranks add to theirs."""

RUN_NAME = re.compile(r"(?!\.{1,2}$)[^/\0\n]{1,200}")


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


def _drafts_and_advantages(config: Config) -> None:
    rollout, objective = config.rollout, config.objective
    compared = objective.advantage in (Advantage.group, Advantage.positive)
    if compared and stages_of(rollout)[-1].num_samples < 2:
        raise UserError(
            "a group of one completion has no advantage; set rollout.num_refinements to 2 or more"
        )
    if not compared and objective.advantage_std != AdvantageStd.sample:
        raise UserError(
            f"objective.advantage_std has no meaning for objective.advantage={objective.advantage}; leave it "
            "out"
        )
    if objective.advantage == Advantage.raft and objective.kind != "reinforce":
        raise UserError(
            "objective.advantage=raft is a cross-entropy and has no ratio; set objective.kind=reinforce"
        )
    for weight in ("draft_weight", "original_prompt_weight"):
        if rollout.selection == Selection.none and getattr(objective, weight):
            raise UserError(f"objective.{weight} needs drafts; set rollout.selection=best or {weight}=0")
    if rollout.selection == Selection.worst_formatted and "format" not in config.reward.weights:
        raise UserError(
            "rollout.selection=worst_formatted asks the reward format which drafts are well-formed; add it, "
            "for example reward.weights.format=0"
        )
    if rollout.selection == Selection.mismatched and config.train.prompts_per_step < 2:
        raise UserError(
            "rollout.selection=mismatched takes drafts of other problems of the step; set "
            "train.prompts_per_step to 2 or more"
        )


def _lora(config: Config) -> None:
    if config.lora.rank and config.model.offload_optimizer:
        raise UserError(
            "model.offload_optimizer moves Megatron's optimizer, which lora.rank replaces by a small one of "
            "its own; set model.offload_optimizer=false"
        )
    if config.lora.rank and not config.lora.targets:
        raise UserError("lora.targets is empty; name tensors, for example lora.targets=[q_proj,v_proj]")


def _data(config: Config) -> None:
    data = config.data
    for name, weight in [("weight", data.weight), *((f"mixture: {s.path}", s.weight) for s in data.mixture)]:
        if not 0 < weight < math.inf:
            raise UserError(f"data.{name}: weight {weight} must be above 0; leave out a set without one")
    if data.weight != 1 and not data.mixture:
        raise UserError("data.weight has no meaning without data.mixture; leave it out")
    if data.min_pass_rate > data.max_pass_rate:
        raise UserError(
            f"data.min_pass_rate={data.min_pass_rate} is above data.max_pass_rate={data.max_pass_rate}; no "
            "problem is left"
        )
    windowed = (data.min_pass_rate, data.max_pass_rate) != (0, 1)
    if data.pass_rate_field is None and (windowed or data.curriculum != Curriculum.none):
        raise UserError(
            "data.curriculum, data.min_pass_rate and data.max_pass_rate go by the column of pass rates; set "
            "data.pass_rate_field"
        )
    if data.answer_pattern is not None:
        try:
            re.compile(data.answer_pattern)
        except re.error as error:
            raise UserError(f"data.answer_pattern is no regular expression ({error}); mend it") from error


def _overlong(config: Config) -> None:
    buffer = config.reward.overlong_buffer
    if bool(buffer) != bool(config.reward.weights.get("overlong")):
        raise UserError(
            f"reward.overlong_buffer={buffer} and reward.weights.overlong="
            f"{config.reward.weights.get('overlong', 0)} go together: set both, or neither"
        )


def validate(config: Config) -> None:
    """Check values and combinations that need neither the model nor the world.

    Raises:
        UserError: naming the field and a value that would do.
    """
    _finite(config)
    _at_least(config, 1, "parallel.tp", "parallel.pp", "parallel.cp", "parallel.ep", "parallel.vpp")
    _at_least(config, 1, "parallel.dp", "rollout.tp", "train.steps", "train.prompts_per_step")
    _at_least(config, 1, "train.mini_batches", "train.micro_batch_tokens", "parity.every", "reward.workers")
    _at_least(config, 1, "parity.sequences")
    _at_least(config, 1, "rollout.num_refinements", "rollout.max_prompt_tokens", "rollout.draft_rounds")
    _at_least(config, 1, "rollout.max_completion_tokens", "rollout.max_concurrent_sequences")
    _at_least(config, 1, "rollout.push_bucket_bytes", "rollout.kv_cache_bytes", "rollout.max_draft_tokens")
    _at_least(config, 0, "rollout.whole_prompts", "rollout.score_steps", "rollout.lag", "rollout.max_refills")
    _at_most(config, 1, "rollout.whole_prompts", "rollout.lag")
    _at_least(config, 1, "train.passes", "checkpoint.keep", "data.size", "eval.problems", "eval.samples")
    _at_least(config, 1, "eval.batch_completions")
    _at_least(config, 0, "data.seed", "eval.temperature", "data.min_pass_rate", "data.max_pass_rate")
    _at_least(config, 1, "data.limit", "data.max_problem_characters")
    _above(config, 0, "data.weight", "lora.alpha")
    _at_least(config, 0, "lora.rank")
    _above(config, 0, "eval.top_p")
    _at_most(config, 1, "eval.top_p", "reward.overlong_buffer", "data.max_pass_rate")
    _at_most(config, LARGEST_SEED, "data.seed")
    _at_least(config, 0, "checkpoint.every", "train.max_skipped_updates", "eval.every")
    _at_least(config, 0, "rollout.num_drafts", "objective.draft_weight", "train.seed")
    _at_least(config, 0, "objective.original_prompt_weight", "reward.overlong_buffer")
    _at_least(config, 0, "optimizer.weight_decay", "optimizer.warmup_ratio", "run.samples_per_step")
    _at_least(config, 0, "optimizer.beta1", "optimizer.beta2")
    _above(config, 0, "rollout.temperature", "optimizer.lr", "optimizer.grad_clip", "reward.time_limit_s")
    _above(config, 0, "optimizer.eps", "parity.mean_threshold", "parity.quantile_threshold")
    _above(config, 0, "run.hang_minutes")
    # below 1 tokens on which sampler and trainer agree would lose weight as well
    _at_least(config, 1, "objective.correction_cap")
    _at_least(config, 0, "reward.greatest")
    _at_most(config, LONGEST_TIME_LIMIT_S, "reward.time_limit_s")
    _at_most(config, LARGEST_SEED, "train.seed")
    check_rewards(config.reward)

    if config.run.name is not None and not RUN_NAME.fullmatch(config.run.name):
        raise UserError(
            f"run.name={config.run.name!r} must be the name of one folder, for example my-run; run.dir says "
            "where it lies"
        )
    rollout, objective, train = config.rollout, config.objective, config.train
    _check_schedule(config)
    if rollout.selection != Selection.none and rollout.num_drafts < 1:
        raise UserError(
            f"rollout.selection={rollout.selection} chooses among drafts but rollout.num_drafts=0; "
            "set rollout.num_drafts to 1 or more, or rollout.selection=none"
        )
    _drafts_and_advantages(config)
    _overlong(config)
    _data(config)
    _lora(config)
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


def _check_schedule(config: Config) -> None:
    """What a schedule of stages cannot be combined with."""
    rollout, objective = config.rollout, config.objective
    ahead = rollout.schedule == Schedule.ahead
    if ahead and objective.draft_weight:
        raise UserError(
            "objective.draft_weight trains on drafts, which rollout.schedule=ahead samples one update too "
            "early; set rollout.schedule=handover or objective.draft_weight=0"
        )
    if rollout.max_refills and (ahead or rollout.lag):
        raise UserError(
            "rollout.max_refills replaces problems of the step that is sampled, so no later one can be under "
            "way; set rollout.schedule=handover and rollout.lag=0, or rollout.max_refills=0"
        )
    if rollout.max_refills and rollout.selection == Selection.mismatched:
        raise UserError(
            "rollout.selection=mismatched pairs the problems of a step, which rollout.max_refills replaces "
            "one by one; set rollout.max_refills=0"
        )
    if rollout.lag and objective.correction == Correction.none:
        raise UserError(
            "rollout.lag=1 trains on samples of weights that are one update older; set "
            "objective.correction=token or sequence to weigh them, or rollout.lag=0"
        )
    if not rollout.draft_early_exit:
        return
    if rollout.selection != Selection.best or objective.draft_weight or objective.original_prompt_weight:
        raise UserError(
            "rollout.draft_early_exit keeps only a best draft; it needs rollout.selection=best, "
            "objective.draft_weight=0 and objective.original_prompt_weight=0"
        )
    own = [name for name, weight in config.reward.weights.items() if ":" in name and weight > 0]
    if config.reward.greatest is None and own:
        raise UserError(
            f"rollout.draft_early_exit needs to know the greatest total reward and {own[0]} says nothing of "
            "its own; set reward.greatest"
        )
