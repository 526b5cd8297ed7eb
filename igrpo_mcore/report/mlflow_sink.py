"""MLflow: whether it can be used, and a run's place there. Its own variables say where
(``MLFLOW_TRACKING_URI``) and as whom."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from igrpo_mcore.errors import UserError, one_line

log = logging.getLogger(__name__)


def check_mlflow() -> str:
    """Whether a run could log there, before one starts.

    Raises:
        UserError: mlflow is not installed, or its tracking server does not answer.
    """
    return str(_client().tracking_uri)


class MlflowSink:
    """Writes to the run ``name`` of an experiment, the same one when the run is resumed.

    Numbers are sent in the background: a server that is away for a while costs them, never a step.
    Raises ``UserError`` where the run cannot be started.
    """

    def __init__(self, experiment: str, name: str, resolved: Mapping[str, Any]) -> None:
        from mlflow.exceptions import MlflowException

        self._client = _client()
        self._sent: list[Any] = []
        try:
            found = self._client.get_experiment_by_name(experiment)
            place = found.experiment_id if found else self._client.create_experiment(experiment)
            mine = f"attributes.run_name = '{name}'"
            runs = self._client.search_runs([place], filter_string=mine, max_results=1)
            run = runs[0] if runs else self._client.create_run(place, run_name=name)
            self._run = run.info.run_id
            self._client.update_run(self._run, status="RUNNING")
            self._client.log_dict(self._run, dict(resolved), "config.yaml")
        except (MlflowException, OSError) as error:
            raise _cannot_use(one_line(error)) from error

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        batch = [Metric(name, value, now, step) for name, value in metrics.items()]
        self._sent.append(self._client.log_batch(self._run, batch, synchronous=False))

    def finish(self) -> None:
        """Wait for what is being sent; what could not be is said, since metrics.jsonl has it."""
        from mlflow.exceptions import MlflowException

        try:
            for sent in self._sent:
                sent.wait()
            self._client.set_terminated(self._run)
        except (MlflowException, OSError) as error:
            log.warning("MLflow has not all of the run's metrics (%s); metrics.jsonl has", one_line(error))


def _client() -> Any:
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise _cannot_use("it is not installed; `pip install igrpo-mcore[mlflow]` does that") from error
    try:
        client = mlflow.MlflowClient()
        client.search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise _cannot_use(one_line(error)) from error
    return client


def _cannot_use(reason: str) -> UserError:
    return UserError(
        f"MLflow cannot be used ({reason}): set MLFLOW_TRACKING_URI to its server, or leave "
        "run.mlflow_experiment empty."
    )
