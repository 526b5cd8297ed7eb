"""Two evaluations are the same only where everything that their completions derive from is."""

import os

import pytest

from igrpo_mcore.config.schema import Config, DataConfig, ModelConfig
from igrpo_mcore.evaluation.fingerprint import fingerprint
from igrpo_mcore.rollout.engine import Sampling
from igrpo_mcore.types import Problem

PROBLEMS = [Problem("1", "1+1", "2"), Problem("2", "1+2", "3")]
SAMPLING = Sampling(8, 0.6, 100, top_p=0.95)


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    os.utime(tmp_path / "model.safetensors", (1000, 1000))
    return tmp_path


def of(weights, suite="aime24", problems=PROBLEMS, sampling=SAMPLING, **options) -> str:
    config = Config(model=ModelConfig(path="m"), data=DataConfig(path="d"))
    for name, value in options.items():
        section, option = name.split("__")
        setattr(getattr(config, section), option, value)
    return fingerprint(config, weights, suite, problems, sampling)


def test_what_it_depends_on(weights):
    base = of(weights)
    assert len(base) == 16
    changed = [
        of(weights, suite="aime25"),
        of(weights, problems=PROBLEMS[:1]),
        of(weights, problems=[PROBLEMS[0], Problem("2", "1+2", "4")]),
        of(weights, sampling=Sampling(8, 0.7, 100, top_p=0.95)),
        of(weights, sampling=Sampling(8, 0.6, 200, top_p=0.95)),
        of(weights, train__seed=1),
        of(weights, data__system_prompt="Think."),
        of(weights, reward__accuracy_from="boxed"),
        of(weights, model__dtype="float32"),
        of(weights, eval__keep_tokens=True),
        of(weights, eval__batch_completions=16),
    ]
    os.utime(weights / "model.safetensors", (2000, 2000))
    changed.append(of(weights))
    assert len({base, *changed}) == len(changed) + 1


def test_what_it_does_not_depend_on(weights):
    base = of(weights)
    assert of(weights, parallel__dp=4) == base
    assert of(weights, rollout__tp=2) == base
    assert of(weights, reward__workers=3) == base
    assert of(weights, optimizer__lr=1.0) == base
