"""Sequences without a gradient are left out of the update: nothing changes but the work."""

import math

import pytest
import torch
from igrpo_kernels import Objective

from igrpo_mcore.policy.policy import carries_gradient
from igrpo_mcore.types import TrainingSequence
from tests.policy.idle_groups_worker import ACTIVE, LAYOUTS
from tests.policy.sequences import training_batch
from tests.support.checkpoints import make_checkpoint
from tests.support.ranks import run_ranks


def test_what_carries_a_gradient():
    idle, active = TrainingSequence((4,), (5,), weight=0.5), TrainingSequence((4,), (5,), (), 1.0, 0.5)
    assert carries_gradient(active, Objective())
    assert not carries_gradient(idle, Objective())
    assert carries_gradient(idle, Objective(kl_coef=0.01))
    assert carries_gradient(idle, Objective(entropy_coef=0.01))


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    root = tmp_path_factory.mktemp("idle")
    run_ranks("tests.policy.idle_groups_worker", 2, make_checkpoint(root / "qwen3", "qwen3"), root)
    return [torch.load(root / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("case", ACTIVE)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_and_gradient_are_as_with_every_sequence(found, layout, case):
    lengths = [len(s.completion_ids) for s in training_batch()]
    for rank in found:
        ours, whole = rank[layout, case, "left out"], rank[layout, case, "run"]
        assert ours["loss"] == pytest.approx(whole["loss"], abs=1e-6)
        scale = float(whole["gradient"].abs().max())
        assert (scale > 1e-3) == (case != "none")
        torch.testing.assert_close(ours["gradient"], whole["gradient"], rtol=0, atol=1e-5 * max(scale, 1e-3))
        assert ours["rows"] == sum(lengths[i] for i in ACTIVE[case])
        assert whole["rows"] == sum(lengths)


@pytest.mark.slow
@pytest.mark.parametrize("case", ACTIVE)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_step_is_taken_and_counted(found, layout, case):
    stats = found[0][layout, case, "step"]["stats"]
    assert stats == found[1][layout, case, "step"]["stats"]
    assert found[0][layout, case, "step"]["updates"] == 1
    sequences = training_batch()
    assert stats.tokens == sum(len(sequences[i]) for i in ACTIVE[case])
    assert stats.batch_tokens == sum(map(len, sequences))
    assert stats.lr > 0
    assert math.isfinite(stats.grad_norm)
    assert (stats.grad_norm > 0) == bool(ACTIVE[case])
