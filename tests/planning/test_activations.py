"""The lists of saved tensors against what autograd saves for the real policy on a CPU."""

import pytest
import torch

from igrpo_mcore import device
from igrpo_mcore.config.schema import Recompute
from igrpo_mcore.planning.activations import (
    Kernels,
    Shape,
    attention,
    checkpoint_of_layer,
    embedding_saved,
    final_norm_saved,
    mlp,
    saved_by_layer,
)
from igrpo_mcore.policy.model import build_model
from igrpo_mcore.policy.packing import pack
from igrpo_mcore.types import TrainingSequence
from tests.planning.support import lone_rank, options, planned
from tests.support.checkpoints import hf_config

TOKENS = 256


def saved_by_module(model, recompute: Recompute) -> dict[str, int]:
    """Top-level layer ("decoder.layers.0", "head", …) -> bytes of storages that autograd keeps, each once."""
    config = options()
    config.model.recompute = recompute
    with lone_rank(config, 0, 1), device.megatron_on_cpu():
        policy = build_model(model.architecture, config.parallel, config.model, 1024)[0].train()
        for parameter in policy.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        parameters = {p.untyped_storage().data_ptr() for p in policy.parameters()}
        half = tuple(range(TOKENS // 2))
        row = pack([TrainingSequence(half, half)], [0], 1, torch.device("cpu"))
        place, kept, found = ["head"], {}, {}
        for name, module in policy.named_modules():
            if name:
                module.register_forward_pre_hook(lambda *_, name=name: place.append(name))
                module.register_forward_hook(lambda *_: place.pop() and None)

        def save(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters and storage.data_ptr() not in kept:
                kept[storage.data_ptr()] = tensor  # keeps the address from being used again
                parts = place[-1].split(".")
                layer = ".".join(parts[:3]) if "layers" in parts else place[-1]
                found[layer] = found.get(layer, 0) + storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            policy(row)
    return found


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_saved_bytes_of_a_transformer(family):
    """Each layer within 2 %: the torch list differs from the fused one in norm and attention only."""
    model = planned(hf_config(family, hidden=256, layers=2, vocab_size=512))
    found = saved_by_module(model, Recompute.none)
    shape = Shape(model.architecture, tp=1, sp=False)
    for layer, symbol in enumerate(model.architecture.pattern):
        expected = saved_by_layer(symbol, shape, Kernels.torch) * TOKENS
        assert found[f"decoder.layers.{layer}"] == pytest.approx(expected, rel=0.02), (symbol, found)


def test_saved_bytes_of_the_hybrid_model():
    """MLP and attention layers within 2 %; mamba_ssm's kernels keep less than the PyTorch scan does."""
    model = planned(hf_config("nemotron_h", hidden=256, num_attention_heads=8, num_key_value_heads=4))
    found = saved_by_module(model, Recompute.none)
    shape = Shape(model.architecture, tp=1, sp=False)
    for layer, symbol in enumerate(model.architecture.pattern):
        measured = found[f"decoder.layers.{layer}"]
        if symbol == "M":
            assert saved_by_layer(symbol, shape) * TOKENS < measured
        else:
            expected = saved_by_layer(symbol, shape, Kernels.torch) * TOKENS
            assert measured == pytest.approx(expected, rel=0.02), symbol


@pytest.mark.parametrize("family", ["qwen2", "nemotron_h"])
def test_full_recompute_keeps_the_layers_inputs(family):
    model = planned(hf_config(family, hidden=256))
    found = saved_by_module(model, Recompute.full)
    a, shape = model.architecture, Shape(model.architecture, tp=1, sp=False)
    per_token = (
        a.layers * checkpoint_of_layer(shape)
        + embedding_saved(shape)
        + final_norm_saved(shape, Kernels.torch)
    )
    rows = shape.b * a.hidden * TOKENS // 2 + 8 * TOKENS // 2  # the head's input rows and their index
    assert sum(found.values()) == pytest.approx(per_token * TOKENS + rows, rel=0.02)


def test_korthikanti_layer():
    """The matrix products' inputs of arXiv 2205.05198, section 4.1, bytes in units of sbh.

    There a layer's QKV input is 2, Q, K and V 6, the output projection's input 2, the MLP's inputs 2
    and 8, each norm's input 2; dropout masks and the softmax do not exist here.
    """
    config = hf_config(
        "llama", hidden=512, num_attention_heads=8, num_key_value_heads=8, head_dim=64, intermediate_size=2048
    )
    shape = Shape(planned(config).architecture, tp=1, sp=False)
    h = 512
    mine = attention(shape, Kernels.fused)
    core = sum(mine[name] for name in ("norm input", "qkv input", "qkv output", "attention output"))
    assert core == 2 * h + 2 * h + 6 * h + 2 * h  # norm 2, shared input 2, QKV 6, projection input 2
    fused = mlp(shape, Kernels.fused)
    assert fused["norm input"] + fused["fc1 input"] + fused["fc2 input"] == 2 * h + 2 * h + 8 * h


@pytest.mark.parametrize("symbol", ["*", "-", "M"])
def test_sequence_parallelism_divides_everything(symbol):
    """Korthikanti et al., equation 4: with it a layer's activations are 1/t, but for the rotary table."""
    model = planned(hf_config("nemotron_h", hidden=256, num_attention_heads=8, num_key_value_heads=4))
    whole = saved_by_layer(symbol, Shape(model.architecture, tp=1, sp=False))
    half = saved_by_layer(symbol, Shape(model.architecture, tp=2, sp=True))
    without = saved_by_layer(symbol, Shape(model.architecture, tp=2, sp=False))
    assert half == pytest.approx(whole / 2)
    assert half < without < whole
