"""Where the numbers of each step go: metrics.jsonl, TensorBoard, Weights & Biases and MLflow."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from igrpo_mcore.config.schema import RunConfig
from igrpo_mcore.errors import cannot_write
from igrpo_mcore.report.mlflow_sink import MlflowSink
from igrpo_mcore.report.records import METRICS_FILE, JsonLines
from igrpo_mcore.report.wandb_sink import finish_wandb, start_wandb


class MetricsWriter:
    """Writes one flat mapping of names to numbers a step; None means "not measured".

    ``resolved`` is the whole configuration as plain dicts, for the last two. ``first_step`` is
    the step that the run begins or goes on with: later lines of an earlier start are replaced.
    Raises ``UserError`` where a file cannot be written or one of those two cannot be used.
    """

    def __init__(
        self, run_dir: Path, config: RunConfig, resolved: Mapping[str, Any], first_step: int = 1
    ) -> None:
        self._run_dir = run_dir
        self._lines = JsonLines(run_dir / METRICS_FILE, first_step)
        self._tensorboard = _tensorboard(run_dir, first_step) if config.tensorboard else None
        self._wandb = start_wandb(run_dir, config, resolved) if config.wandb_project else None
        self._mlflow = (
            MlflowSink(config.mlflow_experiment, str(config.name), resolved)
            if config.mlflow_experiment
            else None
        )

    def write(self, metrics: Mapping[str, float | None]) -> None:
        """Write one step; ``metrics["step"]`` counts from 1."""
        step = metrics["step"]
        assert step is not None
        self._lines.append({"step": int(step), **{k: v for k, v in metrics.items() if k != "step"}})
        measured = {
            name: value
            for name, value in metrics.items()
            if name != "step" and value is not None and math.isfinite(value)
        }
        if self._tensorboard is not None:
            try:
                for name, value in measured.items():
                    self._tensorboard.add_scalar(name, value, int(step))
                self._tensorboard.flush()
            except OSError as error:
                raise cannot_write(self._run_dir / "tensorboard", error) from error
        if self._wandb is not None:
            self._wandb.log(measured, step=int(step))
        if self._mlflow is not None:
            self._mlflow.log(measured, int(step))

    def close(self) -> None:
        """Close every sink; metrics.jsonl first, so that nothing else can lose it."""
        self._lines.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            finish_wandb(self._wandb)
        if self._mlflow is not None:
            self._mlflow.finish()


def _tensorboard(run_dir: Path, first_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    try:
        # purge_step hides what an earlier start wrote from this step on.
        return SummaryWriter(str(run_dir / "tensorboard"), purge_step=first_step if first_step > 1 else None)
    except OSError as error:
        raise cannot_write(run_dir / "tensorboard", error) from error
