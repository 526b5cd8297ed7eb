"""Budgets and head sizes that vLLM would refuse."""

import pytest

from igrpo_mcore.config.schema import RolloutConfig, Selection
from igrpo_mcore.errors import UserError
from igrpo_mcore.rollout.limits import check_engine
from tests.support.checkpoints import FAMILIES, hf_config


@pytest.mark.parametrize("family", FAMILIES)
def test_a_budget_up_to_the_position_limit_is_taken(family: str):
    config = hf_config(family, max_position_embeddings=100)
    for prompt in (
        {"max_prompt_tokens": 20, "max_refinement_prompt_tokens": 60},
        {"max_prompt_tokens": 60, "selection": Selection.none},
    ):
        check_engine(config, RolloutConfig(max_completion_tokens=40, **prompt))
        with pytest.raises(UserError, match=r"= 101 .* max_position_embeddings 100; lower"):
            check_engine(config, RolloutConfig(max_completion_tokens=41, **prompt))


def test_by_default_q_prime_has_room_for_prompt_draft_and_template():
    """Table S.2 of arXiv 2602.09000: 1,024 of the bare prompt, 4,096 of a completion."""
    rollout = RolloutConfig()
    assert (rollout.max_prompt_tokens, rollout.max_completion_tokens) == (1024, 4096)
    assert rollout.longest_prompt == 1024 + 4096 + len("\n\nPrior draft:\n")
    assert rollout.longest_sequence == rollout.longest_prompt + 4096
    assert RolloutConfig(draft_template="{problem}ü{draft}!").refinement_prompt_budget == 1024 + 4096 + 3
    assert RolloutConfig(selection=Selection.none).longest_prompt == 1024


def test_a_head_size_without_a_cpu_kernel_is_named(monkeypatch: pytest.MonkeyPatch):
    rollout = RolloutConfig(max_prompt_tokens=20, max_completion_tokens=40)
    monkeypatch.setattr("igrpo_mcore.rollout.limits.has_cuda", lambda: False)
    with pytest.raises(UserError, match="head_dim 24 "):
        check_engine(hf_config("qwen3", head_dim=24), rollout)
    with pytest.raises(UserError, match="head_dim 16 "):
        check_engine(hf_config("qwen2", hidden=64), rollout)
    monkeypatch.setattr("igrpo_mcore.rollout.limits.has_cuda", lambda: True)
    check_engine(hf_config("qwen3", head_dim=24), rollout)
