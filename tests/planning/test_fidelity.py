"""Planned times against published ones. What was fitted and what is a check: docs/plan.md."""

import pytest

from igrpo_mcore.config.schema import Recompute, Selection
from igrpo_mcore.planning.workload import Lengths
from tests.planning.published import LLAMA_8B, LLAMA_70B, QWEN3_32B, nemo_rl, paper_gpu_hours

TP4_PP4 = {"parallel.tp": 4, "parallel.sp": True, "parallel.pp": 4, "rollout.tp": 4}


def test_the_papers_7b():
    """Its table of costs: iGRPO 94.1 GPU-hours, GRPO 83.3."""
    assert paper_gpu_hours(Selection.best) == pytest.approx(94.1, rel=0.15)
    assert paper_gpu_hours(Selection.none) == pytest.approx(83.3, rel=0.15)


@pytest.mark.parametrize(
    ("completion", "seconds"),
    [(1019, 92.8), (1060, 97.7)],
    ids=["v0.5", "v0.4"],
)
def test_llama_8b_on_16_h100(completion, seconds):
    """NeMo-RL's performance summary."""
    changes = {"parallel.pp": 2, "model.recompute": Recompute.full}
    step = nemo_rl(LLAMA_8B, Lengths(127, completion), 16, **changes)
    assert step.time.step == pytest.approx(seconds, rel=0.2)


@pytest.mark.parametrize(("completion", "seconds"), [(3251, 376), (3206, 393)], ids=["v0.5", "v0.4"])
def test_qwen3_32b_on_32_h100(completion, seconds):
    step = nemo_rl(QWEN3_32B, Lengths(104, completion), 32, **TP4_PP4)
    assert step.time.step == pytest.approx(seconds, rel=0.2)


@pytest.mark.parametrize(
    ("hf_config", "completion", "world", "changes", "published"),
    [
        (LLAMA_8B, 795, 8, {"parallel.pp": 2}, (58, 18, 28, 5)),
        (LLAMA_70B, 398, 64, TP4_PP4, (84, 18, 28, 14)),
    ],
    ids=["8B", "70B"],
)
def test_each_phase_of_nemo_rl_v03(hf_config, completion, world, changes, published):
    """NVIDIA-NeMo/RL#959: generation, log-probs, training, refit."""
    time = nemo_rl(hf_config, Lengths(127, completion), world, **changes).time
    planned = (time.refinements, time.logprobs, time.update, time.push)
    assert planned == pytest.approx(published, rel=0.25)
