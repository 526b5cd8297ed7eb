"""Every family against transformers: the tensors it saves, and the configs that would be trained wrongly."""

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from igrpo_mcore.errors import UserError
from igrpo_mcore.families import architecture_of, families, table_for
from igrpo_mcore.weights.checkpoint import open_checkpoint
from tests.support.checkpoints import FAMILIES, hf_config, make_checkpoint

TIED = [family for family in FAMILIES if family != "nemotron_h"]


def test_a_family_is_called_as_transformers_calls_it():
    assert list(families()) == ["llama", "mistral", "nemotron_h", "qwen2", "qwen3"]
    assert all(family in CONFIG_MAPPING for family in families())


@pytest.mark.parametrize(("family", "tied"), [*((f, False) for f in FAMILIES), *((f, True) for f in TIED)])
def test_table_has_exactly_the_tensors_that_transformers_saves(tmp_path, family, tied):
    folder = make_checkpoint(tmp_path, family, hidden=64, layers=5, tie_word_embeddings=tied)
    table = table_for(hf_config(family, hidden=64, layers=5, tie_word_embeddings=tied))
    saved = open_checkpoint(folder).shapes
    assert saved == {name: tensor.shape for name, tensor in table.tensors.items()}


def test_unknown_family_is_refused():
    class Config:
        model_type = "gpt_bigcode"

    with pytest.raises(UserError, match=r"gpt_bigcode.*; supported are llama, mistral, nemotron_h"):
        table_for(Config())


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        ("llama", "hidden_act", "gelu"),
        ("llama", "attention_bias", True),
        ("llama", "mlp_bias", True),
        ("mistral", "hidden_act", "gelu"),
        ("mistral", "attention_bias", True),
        ("qwen2", "use_sliding_window", True),
        ("qwen3", "attention_bias", True),
        ("nemotron_h", "tie_word_embeddings", True),
        ("nemotron_h", "mlp_hidden_act", "silu"),
        ("nemotron_h", "mamba_hidden_act", "gelu"),
        ("nemotron_h", "use_bias", True),
        ("nemotron_h", "use_conv_bias", False),
        ("nemotron_h", "conv_kernel", 3),
        ("nemotron_h", "time_step_limit", [0.001, 0.1]),
    ],
)
def test_what_the_policy_does_not_compute_is_refused(family, field, value):
    architecture_of(hf_config(family))
    with pytest.raises(UserError, match=f"Config with {field}=.* is not supported; use a checkpoint with "):
        architecture_of(hf_config(family, **{field: value}))


def test_expert_blocks_are_refused():
    with pytest.raises(UserError, match=r"blocks of type \['moe'\]"):
        architecture_of(hf_config("nemotron_h", layers_block_type=["mamba", "moe", "attention", "mlp"]))


@pytest.mark.parametrize("family", TIED)
def test_rotary_embeddings(family):
    llama3 = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    default = hf_config(family, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    assert architecture_of(default).rope_theta == 1e6
    scaled = hf_config(family, rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, **llama3})
    assert architecture_of(scaled).rope_scaling == llama3
    other = hf_config(family, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0})
    with pytest.raises(UserError, match="type 'linear' are not supported"):
        architecture_of(other)
