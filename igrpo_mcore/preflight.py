"""Everything that can be known to fail before a rank is started."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from igrpo_mcore.config.schema import Config
from igrpo_mcore.data.mixture import fitting
from igrpo_mcore.data.problems import held_out_problems, load_sets, sets_of
from igrpo_mcore.data.templates import PromptRenderer
from igrpo_mcore.data.tokenizer import load_tokenizer
from igrpo_mcore.disk import GIB, Room, room_for
from igrpo_mcore.errors import UserError
from igrpo_mcore.families import architecture_of, table_for
from igrpo_mcore.families.architecture import Architecture
from igrpo_mcore.policy.architecture import check_layout, check_targets, check_window, load_hf_config
from igrpo_mcore.report.mlflow_sink import check_mlflow
from igrpo_mcore.report.wandb_sink import check_wandb
from igrpo_mcore.rewards.judge import check_judge
from igrpo_mcore.rewards.options import options_of
from igrpo_mcore.rewards.registry import JUDGE, load_reward
from igrpo_mcore.rollout.limits import check_engine
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder, checkpoint_bytes
from igrpo_mcore.run.folder import check_run_folder, checkpoints_dir, journal_dir, run_dir
from igrpo_mcore.run.journal_size import most_journal_bytes
from igrpo_mcore.types import Problem
from igrpo_mcore.weights.checkpoint import (
    check_against_table,
    check_head_copy,
    open_checkpoint,
    resolve_checkpoint,
)


def local_ranks(config: Config) -> int:
    """Ranks that the recipe's layout needs on its own."""
    return config.parallel.tp * config.parallel.pp * (config.parallel.dp or 1)


class Check(NamedTuple):
    """Something a run needs. ``find`` says what it found or raises ``UserError``.

    ``reads`` names the folders or hub ids whose files it opens.
    """

    what: str
    find: Callable[[], str]
    reads: tuple[str, ...] = ()


def preflight(config: Config, world_size: int, *, writes_run: bool = True, reads_data: bool = True) -> None:
    """Check model, layout, checkpoint names and shapes, data, prompts, rewards and disk; starts nothing.

    ``writes_run`` false leaves the run's folder out: ``igrpo verify`` has none. ``reads_data`` false leaves
    ``data.path`` out: ``igrpo eval`` has problems of its own.

    Raises:
        UserError: with the first thing that would fail.
    """
    hf_config = load_hf_config(config.model.path)
    architecture = architecture_of(hf_config, config.model.dtype)
    needed = checks(config, hf_config, architecture, world_size, writes_run=writes_run)
    for check in needed:
        if reads_data or config.data.path not in check.reads:
            check.find()
    if writes_run:
        check_disk(config, hf_config)


def checks(
    config: Config, hf_config: Any, architecture: Architecture, world_size: int, *, writes_run: bool
) -> list[Check]:
    """What a run needs wherever it is submitted from, the quick first. The run's folder needs its name."""

    def model() -> str:
        if config.lora.rank:
            check_targets(list(table_for(hf_config).tensors), config.lora)
        check_layout(architecture, config.parallel, config.rollout.tp, world_size)
        check_window(architecture, config.rollout.longest_sequence)
        check_engine(hf_config, config.rollout)
        return f"{config.model.path} on {world_size} ranks"

    def rewards() -> str:
        for name in config.reward.weights:
            if name != JUDGE:
                load_reward(name)
        if JUDGE in config.reward.weights and config.reward.judge.check:
            check_judge(config.reward.judge)
        if config.reward.weights.get("reasoning_gym"):
            from igrpo_mcore.rewards.reasoning_gym import check_verifiers

            check_verifiers(problems(), options_of(config.reward))
        return ", ".join(config.reward.weights)

    def run_folder() -> str:
        check_run_folder(config)
        check_steps_left(config)
        return str(run_dir(config.run))

    @cache
    def sets() -> list[list[Problem]]:
        return load_sets(config.data)

    def problems() -> list[Problem]:
        return [problem for of_set in sets() for problem in of_set]

    def prompts() -> str:
        for of_set in sets():
            check_prompts(config, of_set, drop_long=config.data.drop_long_prompts)
        return f"all within rollout.max_prompt_tokens={config.rollout.max_prompt_tokens}"

    held_out = config.eval.path or config.data.path

    def evaluation() -> str:
        found = held_out_problems(config)
        check_prompts(config, found)
        return f"{len(found)} held-out problems, every {config.eval.every} steps"

    def checkpoint() -> str:
        check_checkpoint(config.model.path, hf_config)
        return "every tensor is there with its shape"

    data_paths = tuple(of_set.path for of_set in sets_of(config.data))
    return [
        Check("model and layout", model),
        Check("rewards", rewards),
        *([Check("run folder", run_folder)] if writes_run else []),
        *([Check("Weights & Biases", check_wandb)] if writes_run and config.run.wandb_project else []),
        *([Check("MLflow", check_mlflow)] if writes_run and config.run.mlflow_experiment else []),
        Check("data", lambda: f"{len(problems())} problems", data_paths),
        Check("prompts", prompts, (*data_paths, config.model.path)),
        *([Check("evaluation", evaluation, (held_out,))] if writes_run and config.eval.every else []),
        Check("checkpoint", checkpoint, (config.model.path,)),
    ]


def check_prompts(config: Config, problems: list[Problem], *, drop_long: bool = False) -> None:
    """Raises ``UserError`` for the first bare prompt over ``rollout.max_prompt_tokens``; with ``drop_long``
    only where it leaves no prompt."""
    renderer = PromptRenderer(load_tokenizer(config.model.path), config.data, config.rollout)
    if drop_long:
        fitting(problems, config.data, renderer.fits)
        return
    for problem in problems:
        renderer.first(problem)


def check_checkpoint(path: str, hf_config: Any) -> None:
    """Raises ``UserError`` where the checkpoint's tensors are not those of its family's table, or where it
    carries a tied head that is not the embedding."""
    checkpoint = open_checkpoint(resolve_checkpoint(path))
    table = table_for(hf_config)
    check_against_table(checkpoint, table)
    check_head_copy(checkpoint, table)


def most_checkpoints(config: Config) -> int:
    """Checkpoints that lie on the disk at once: those kept, the best one where ``eval.every`` evaluates, and
    the one being written."""
    best = config.eval.every > 0 and config.checkpoint.keep_best
    return config.checkpoint.keep + 1 + int(best)


def check_disk(config: Config, hf_config: Any) -> None:
    """Raises ``UserError`` where the run's checkpoints, at most ``most_checkpoints``, and its journal would
    not fit on the disk of ``run.dir``.
    """
    each = checkpoint_bytes(table_for(hf_config).parameters, config.model.dtype)
    checkpoints = room_for(checkpoints_dir(config.run), each * most_checkpoints(config))
    journal = room_for(journal_dir(config.run), most_journal_bytes(config))
    if not Room(checkpoints.free, checkpoints.needed + journal.needed).enough:
        raise UserError(
            f"{config.run.dir} has {checkpoints.free / GIB:.3g} GiB free and the run's checkpoints take up "
            f"to {checkpoints.needed / GIB:.3g} GiB more ({each / GIB:.3g} GiB each, checkpoint.keep="
            f"{config.checkpoint.keep}, the best by eval.every, and the one being written), its journal "
            f"{journal.needed / GIB:.3g}: free space, lower checkpoint.keep, or set run.dir to another disk"
        )


def check_steps_left(config: Config) -> None:
    """Raises ``UserError`` where the run's newest checkpoint already has ``train.steps`` steps."""
    done = steps_done(config)
    if done >= config.train.steps:
        raise UserError(
            f"run {config.run.name} has done {done} of train.steps={config.train.steps} steps: raise "
            "train.steps to go on, or set another run.name"
        )


def steps_done(config: Config) -> int:
    """Steps of the run's newest checkpoint, 0 where there is none."""
    return CheckpointFolder(checkpoints_dir(config.run)).last_step()
