"""Which changes of a configuration make its journal another run's."""

from dataclasses import replace

import pytest

from igrpo_mcore.config.load import all_keys
from igrpo_mcore.config.schema import Config
from igrpo_mcore.run.journal_origin import NO_MATTER, origin_of
from igrpo_mcore.types import Problem

PROBLEMS = [Problem("a", "1+1=", "2"), Problem("b", "1+2=", "3")]


def config(tmp_path, **options) -> Config:
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    made = Config()
    made.model.path, made.data.path = str(tmp_path / "model"), "problems.jsonl"
    for name, value in options.items():
        section, option = name.split("__")
        setattr(getattr(made, section), option, value)
    return made


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer__lr": 1e-3},
        {"train__seed": 1},
        {"train__steps": 7},
        {"rollout__temperature": 1.0},
        {"reward__weights": {"accuracy": 2.0}},
        {"objective__kl_coef": 0.1},
        {"data__system_prompt": "s"},
        {"parallel__tp": 2},
        {"rollout__tp": 2},
        {"reward__workers": 3},
        {"train__micro_batch_tokens": 5},
        {"checkpoint__every": 5},
        {"run__name": "n"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_a_sample_depends_on_counts_and_nothing_else(tmp_path, change):
    before, after = origin_of(config(tmp_path), PROBLEMS), origin_of(config(tmp_path, **change), PROBLEMS)
    name = next(iter(change)).replace("__", ".")
    counts = name.split(".")[0] not in ("parallel", "checkpoint", "run") and name not in NO_MATTER
    differs = {key[: len(name)] for key in {*before, *after} if before.get(key) != after.get(key)}
    assert differs == ({name} if counts else set())


def test_problems_and_model_files_count(tmp_path):
    before = origin_of(config(tmp_path), PROBLEMS)
    for problems in (PROBLEMS[:1], PROBLEMS[::-1], [replace(PROBLEMS[0], answer="3"), PROBLEMS[1]]):
        assert origin_of(config(tmp_path), problems)["problems"] != before["problems"]
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    assert origin_of(config(tmp_path), PROBLEMS)["model files"] != before["model files"]


def test_options_that_do_not_matter_exist():
    assert set(all_keys()) >= NO_MATTER
