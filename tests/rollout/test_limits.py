"""Budgets and head sizes that vLLM would refuse."""

import pytest

from igrpo_mcore.config.schema import RolloutConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.rollout.limits import check_engine
from tests.support.checkpoints import FAMILIES, hf_config


@pytest.mark.parametrize("family", FAMILIES)
def test_a_budget_up_to_the_position_limit_is_taken(family: str):
    config = hf_config(family, max_position_embeddings=100)
    check_engine(config, RolloutConfig(max_prompt_tokens=60, max_completion_tokens=40))
    with pytest.raises(UserError, match=r"= 101 .* max_position_embeddings 100; lower"):
        check_engine(config, RolloutConfig(max_prompt_tokens=60, max_completion_tokens=41))


def test_a_head_size_without_a_cpu_kernel_is_named(monkeypatch: pytest.MonkeyPatch):
    rollout = RolloutConfig(max_prompt_tokens=60, max_completion_tokens=40)
    monkeypatch.setattr("igrpo_mcore.rollout.limits.has_cuda", lambda: False)
    with pytest.raises(UserError, match="head_dim 24 "):
        check_engine(hf_config("qwen3", head_dim=24), rollout)
    with pytest.raises(UserError, match="head_dim 16 "):
        check_engine(hf_config("qwen2", hidden=64), rollout)
    monkeypatch.setattr("igrpo_mcore.rollout.limits.has_cuda", lambda: True)
    check_engine(hf_config("qwen3", head_dim=24), rollout)
