"""MLflow's own store, read back by MLflow's client."""

from pathlib import Path

import pytest

from igrpo_mcore.config.schema import RunConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.report.metrics import MetricsWriter
from igrpo_mcore.report.mlflow_sink import check_mlflow

CONFIG = RunConfig(name="r", tensorboard=False, mlflow_experiment="p")


def test_without_mlflow_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(UserError, match=r"not installed.*igrpo-mcore\[mlflow\].*run.mlflow_experiment empty"):
        check_mlflow()


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        check_mlflow()


def test_a_resumed_run_goes_on_in_the_same_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert "mlruns" in check_mlflow()
    for step in (1, 2):
        writer = MetricsWriter(tmp_path, CONFIG, {"train": {"steps": 2}}, first_step=step)
        writer.write({"step": step, "policy/entropy": step / 4, "policy/kl": None})
        writer.close()
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("p").experiment_id])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "policy/entropy")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.25), (2, 0.5)]
    assert "policy/kl" not in run.data.metrics
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["config.yaml"]
