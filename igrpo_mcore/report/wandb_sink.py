"""Weights & Biases: whether it can be used, and a run's place there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from igrpo_mcore.config.schema import RunConfig
from igrpo_mcore.errors import UserError, one_line

LIMIT_S = 180.0
"""Seconds that its service process may take to start, and a run to begin. wandb itself gives the process
30, which a machine with more busy processes than cores does not always keep."""
WITHOUT_NETWORK = ("offline", "dryrun", "disabled")


def check_wandb() -> str:
    """Whether a run could log there, before one starts; asks the server only in online mode.

    Raises:
        UserError: no API key, one that the server refuses, or no server.
    """
    import wandb

    mode = wandb.setup(wandb.Settings(x_service_wait=LIMIT_S)).settings.mode
    if mode in WITHOUT_NETWORK:
        return f"mode {mode}"
    try:
        if not wandb.login(prompt=False, verify=True):
            raise cannot_use("there is no API key")
    except (wandb.errors.Error, OSError) as error:
        raise cannot_use(one_line(error)) from error
    finally:
        wandb.teardown()  # its service process is started again by the rank that logs
    return "logged in"


def start_wandb(run_dir: Path, config: RunConfig, resolved: Mapping[str, Any]) -> Any:
    """The run there, one id a run folder, so that a resumed run goes on in the same curves.

    Raises:
        UserError: it cannot be started.
    """
    import wandb

    limits = wandb.Settings(x_service_wait=LIMIT_S, init_timeout=LIMIT_S)
    try:
        wandb.setup(limits)  # init starts the service process with the settings of setup
        return wandb.init(
            project=config.wandb_project,
            name=config.name,
            id=str(config.name).replace("/", "-"),
            resume="allow",
            dir=str(run_dir),
            config=dict(resolved),
            settings=limits,
        )
    except (wandb.errors.Error, OSError) as error:
        raise cannot_use(one_line(error)) from error


def finish_wandb(run: Any) -> None:
    """End the run and the service process: ``finish`` may return before that process has written the
    records of an offline run (9 of 40 on a busy machine, wandb 0.31)."""
    import wandb

    run.finish()
    wandb.teardown()


def cannot_use(reason: str) -> UserError:
    return UserError(
        f"Weights & Biases cannot be used ({reason}): run `wandb login`, set WANDB_MODE=offline, or "
        "leave run.wandb_project empty."
    )
