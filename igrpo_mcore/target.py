"""What ``igrpo eval`` is pointed at: a run, one of its checkpoints, a Hugging Face folder, or a recipe."""

import json
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from igrpo_mcore import device
from igrpo_mcore.config.load import load_config, resolve
from igrpo_mcore.config.schema import Config
from igrpo_mcore.errors import UserError, one_line
from igrpo_mcore.export import find_checkpoint
from igrpo_mcore.run.folder import CONFIG_FILE, config_of_run

START = "-start"
"""Ends the name of the folder that an evaluation without a run writes to."""
NO_DATA = "(no training data)"
BOXED = "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
"""The user's message where no recipe says how problems are put."""
PROMPT_TOKENS, COMPLETION_TOKENS = 2048, 4096


@dataclass(frozen=True)
class Target:
    """``checkpoint`` is a run's, whose weights are taken; None takes those of ``config.model.path``."""

    config: Config
    checkpoint: Path | None
    step: int


def target_of(source: Path, overrides: list[str] | None, step: int | str | None) -> Target:
    """The configuration and the weights that ``source`` stands for; ``step`` chooses a run's checkpoint.

    Of a recipe and of a Hugging Face folder, figures go to a run folder of that name and ``-start``.

    Raises:
        UserError: there is no such thing, or no such checkpoint, or ``step`` where there is none to choose.
    """
    is_run = (source / CONFIG_FILE).is_file()
    if is_run or source.parent.name == "checkpoints":
        checkpoint = find_checkpoint(source, step)
        config = config_of_run(checkpoint.parent.parent, overrides)
        return Target(config, checkpoint, int(checkpoint.name.removeprefix("step_")))
    if step is not None:
        raise UserError(f"--step {step} asks for a run's checkpoint and {source} is none; give runs/NAME")
    if source.is_dir():
        if not (source / "config.json").is_file():
            raise UserError(
                f"{source} is no run's folder ({CONFIG_FILE}), no checkpoint of one and no Hugging Face "
                "folder (config.json); correct the path"
            )
        config, name = (
            resolve([(str(source), _defaults(source))], overrides, str(source)),
            source.resolve().name,
        )
    else:
        config, name = load_config(source, overrides), source.stem
    config.run.name = (config.run.name or name).removesuffix(START) + START
    return Target(config, None, 0)


def _defaults(folder: Path) -> DictConfig:
    """Options of a checkpoint that no recipe goes with: one rank, the answer boxed, as long as it allows."""
    try:
        limit = int(json.loads((folder / "config.json").read_text())["max_position_embeddings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / 'config.json'} gives no max_position_embeddings ({one_line(error)}); correct it, or "
            "write a recipe"
        ) from error
    prompt = min(PROMPT_TOKENS, limit // 2)
    return OmegaConf.create(
        {
            "model": {"path": str(folder), "dtype": "bfloat16" if device.has_cuda() else "float32"},
            "data": {"path": NO_DATA},
            "rollout": {
                "selection": "none",
                "max_prompt_tokens": prompt,
                "max_completion_tokens": min(COMPLETION_TOKENS, limit - prompt),
            },
            "reward": {"weights": {"accuracy": 1.0, "format": 0.0}, "accuracy_from": "boxed"},
            "eval": {"template": BOXED},
        }
    )
