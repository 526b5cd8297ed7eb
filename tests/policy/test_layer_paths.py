"""On a machine with a GPU a package that does not import is refused, not replaced by PyTorch's slow path."""

import sys

import pytest
import torch
from megatron.core.ssm import mamba_mixer

from igrpo_mcore.config.schema import ModelConfig, ParallelConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.families import architecture_of
from igrpo_mcore.policy import layer_spec
from igrpo_mcore.policy.layer_spec import layer_paths
from igrpo_mcore.policy.model import build_model, transformer_config
from tests.support.checkpoints import hf_config


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def transformer_engine(gpu, monkeypatch):
    monkeypatch.setattr(layer_spec, "HAVE_TE", True)


def test_without_a_gpu_every_layer_is_pytorchs():
    assert layer_paths(mamba=True) == dict.fromkeys(("attention", "linear", "norm", "mamba"), "PyTorch")


def test_transformer_engine_that_does_not_import_is_refused_before_a_model_is_built(gpu):
    architecture = architecture_of(hf_config("qwen3"))
    with pytest.raises(UserError, match=r"transformer_engine does not import .*No module named") as refusal:
        build_model(architecture, ParallelConfig(), ModelConfig(), 64)
    assert "install transformer-engine[pytorch]" in str(refusal.value)


def test_the_reason_of_a_broken_build_is_told(gpu, monkeypatch):
    def broken(name: str):
        raise OSError("libcudnn.so.9: cannot open shared object file")

    monkeypatch.setattr(layer_spec.importlib, "import_module", broken)
    with pytest.raises(UserError, match=r"OSError: libcudnn.so.9: cannot open"):
        layer_paths(mamba=False)


def test_a_mamba_model_needs_its_two_packages_and_a_dense_one_does_not(transformer_engine, monkeypatch):
    assert layer_paths(mamba=False) == dict.fromkeys(("attention", "linear", "norm"), "Transformer Engine")
    with pytest.raises(UserError, match=r"mamba_ssm does not import .*install mamba-ssm,"):
        layer_paths(mamba=True)
    monkeypatch.setattr(mamba_mixer, "HAVE_MAMBA_SSM", True)
    monkeypatch.setitem(sys.modules, "causal_conv1d", None)
    with pytest.raises(UserError, match=r"causal_conv1d does not import .*install causal-conv1d>=1.4,"):
        layer_paths(mamba=True)
    monkeypatch.setattr(mamba_mixer, "causal_conv1d_fn", print)
    assert layer_paths(mamba=True)["mamba"] == "mamba_ssm and causal_conv1d"


def test_fusions_only_where_their_kernels_are(transformer_engine, monkeypatch):
    from megatron.core.models.common.embeddings import rope_utils

    monkeypatch.setattr(rope_utils, "fused_apply_rotary_pos_emb_thd", print)
    configs = {
        family: transformer_config(architecture_of(hf_config(family)), ParallelConfig(), ModelConfig())
        for family in ("qwen3", "nemotron_h")
    }
    assert (configs["qwen3"].bias_activation_fusion, configs["qwen3"].apply_rope_fusion) == (True, True)
    hybrid = configs["nemotron_h"]  # squared ReLU and no positions
    assert (hybrid.bias_activation_fusion, hybrid.apply_rope_fusion) == (False, False)
    monkeypatch.undo()
    plain = transformer_config(architecture_of(hf_config("qwen3")), ParallelConfig(), ModelConfig())
    assert (plain.bias_activation_fusion, plain.apply_rope_fusion) == (False, False)
