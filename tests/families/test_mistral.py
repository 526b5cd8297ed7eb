"""Mistral's own: its config's fields, and the sliding window; forward and push are in the matrices of
tests/policy/test_layouts.py and tests/weights, where it has a window of 4,096 tokens."""

from dataclasses import fields

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM, PreTrainedConfig

from igrpo_mcore.errors import UserError
from igrpo_mcore.families import architecture_of
from igrpo_mcore.policy.architecture import check_window
from tests.support.checkpoints import hf_config

READ = {
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",  # by rollout.limits
    "rms_norm_eps",
    "eos_token_id",  # by rollout.stop_tokens
    "tie_word_embeddings",
    "rope_parameters",
    "sliding_window",
}
WITHOUT_EFFECT = {
    "initializer_range",
    "use_cache",
    "pad_token_id",
    "bos_token_id",
    "attention_dropout",  # 0 here, as in vLLM
}


def test_every_field_of_transformers_config_is_known():
    """A field that a later transformers adds must be looked at."""
    own = {field.name for field in fields(MistralConfig)} - {field.name for field in fields(PreTrainedConfig)}
    assert own <= READ | WITHOUT_EFFECT
    assert set(MistralConfig.__annotations__) == READ | WITHOUT_EFFECT


def test_head_dim_is_its_own():
    """Mistral-Nemo: 32 heads of 128 at a hidden size of 5,120; head_dim left out is hidden / heads."""
    nemo = MistralConfig(hidden_size=5120, num_attention_heads=32, head_dim=128)
    assert architecture_of(nemo).head_dim == 128
    assert architecture_of(MistralConfig(hidden_size=5120, num_attention_heads=32)).head_dim == 160


def test_a_window_is_refused_where_a_sequence_is_longer():
    """Where transformers' logits of the last of 97 tokens change: with a window of 96, not with one of 97."""
    torch.manual_seed(0)
    model = MistralForCausalLM(hf_config("mistral", layers=1)).eval()
    ids = torch.randint(3, 128, (1, 97))
    last = {}
    for model.config.sliding_window in (96, 97, None):
        last[model.config.sliding_window] = model(ids).logits[0, -1]
    assert torch.equal(last[97], last[None])
    assert not torch.allclose(last[96], last[None])
    check_window(architecture_of(hf_config("mistral", sliding_window=None)), 1 << 20)
    windowed = architecture_of(hf_config("mistral", sliding_window=96))
    check_window(windowed, 96)
    with pytest.raises(UserError, match=r"sliding_window of 96 tokens, .* sequences of up to 97; lower"):
        check_window(windowed, 97)
