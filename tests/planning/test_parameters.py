"""Parameter, gradient and optimizer bytes against transformers' and Megatron's own models."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from igrpo_mcore.planning.catalogue import CATALOGUE, catalogue_config
from igrpo_mcore.planning.layout import layout_of, stages_of
from igrpo_mcore.planning.parameters import (
    engine_weight_bytes,
    stage_parameters,
    trainer_bytes,
)
from tests.planning.support import lone_rank, options, planned
from tests.support.checkpoints import FAMILIES, hf_config


def transformers_count(config) -> int:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum({id(p): p.numel() for p in model.parameters()}.values())


@pytest.mark.parametrize("path", ["Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-14B", "nvidia/Nemotron-H-8B-Base-8K"])
def test_catalogue_counts_equal_transformers(path):
    config = catalogue_config(path)
    assert planned(config).table.parameters == transformers_count(config)


def test_catalogue_holds_the_published_sizes():
    """Model cards: Qwen2.5-7B 7.61 B, Qwen2.5-14B 14.7 B, Nemotron-H-8B 8.1 B."""
    published = {"Qwen/Qwen2.5-7B": 7.61, "Qwen/Qwen2.5-14B": 14.77, "nvidia/Nemotron-H-8B-Base-8K": 8.10}
    for path, billions in published.items():
        assert planned(catalogue_config(path)).table.parameters / 1e9 == pytest.approx(billions, abs=0.01)
    assert set(published) <= set(CATALOGUE)


@pytest.mark.parametrize(
    ("family", "tied"),
    [(family, False) for family in FAMILIES]
    + [(family, True) for family in FAMILIES if family != "nemotron_h"],  # never tied
)
@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_ranks_together_hold_the_whole_model(family, tied, tp, pp):
    """Replicated parameters once, padding and a tied head's second copy taken off."""
    config = hf_config(family, tie_word_embeddings=tied, vocab_size=129)  # padded under TP
    model = planned(config)
    layout = layout_of(options(tp, pp), model.architecture, tp * pp)
    total = 0
    for stage in stages_of(model.architecture, layout):
        for parameter in stage_parameters(model, layout, stage):
            if parameter.shared and not stage.first:
                continue
            rule = model.table.by_param[parameter.name]
            ranks = 1 if rule.dim is None else tp
            total += ranks * parameter.numel - parameter.padding * math.prod(parameter.shape[1:])
    assert total == transformers_count(config)


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_engine_ranks_hold_every_weight(tp):
    """Even splits: an engine's ranks hold the model, norms (and heads beyond their number) replicated."""
    config = catalogue_config("Qwen/Qwen2.5-14B")
    model = planned(config)
    norms = (2 * config.num_hidden_layers + 1) * config.hidden_size
    expected = 2 * ((model.table.parameters - norms) // tp + norms)
    assert engine_weight_bytes(model, tp) == expected


@pytest.mark.parametrize(
    ("family", "world", "rank", "tp", "pp", "vpp", "dtype", "tied"),
    [
        ("qwen2", 1, 0, 1, 1, 1, "bfloat16", False),
        ("qwen2", 8, 7, 2, 2, 1, "bfloat16", True),
        ("qwen2", 4, 0, 1, 2, 1, "bfloat16", True),
        ("qwen3", 4, 1, 1, 2, 2, "float32", False),
        ("llama", 3, 2, 1, 1, 1, "bfloat16", True),
        ("nemotron_h", 8, 3, 2, 2, 1, "bfloat16", False),
        ("nemotron_h", 4, 3, 2, 1, 1, "bfloat16", False),
    ],
)
def test_bytes_equal_what_megatron_allocates(family, world, rank, tp, pp, vpp, dtype, tied):
    """DDP buffers, fp32 main copies and Adam moments of one rank, after an optimizer step."""
    from megatron.core import parallel_state

    from igrpo_mcore import device
    from igrpo_mcore.policy.policy import Policy

    config = options(tp, pp, vpp, dtype)
    model = planned(hf_config(family, tie_word_embeddings=tied), dtype)
    with lone_rank(config, rank, world):
        policy = Policy(config, model.architecture, updates=2)
        dp_rank = parallel_state.get_data_parallel_rank()
        with device.megatron_on_cpu():
            policy._optimizer.step()
        buffers = [buffer for ddp in policy._ddp for buffer in ddp.buffers]
        parameters = sum(buffer.param_data.nbytes for buffer in buffers)
        gradients = sum(buffer.grad_data.nbytes for buffer in buffers)
        optimizer = optimizer_bytes(policy._optimizer)
    layout = layout_of(config, model.architecture, world)
    stage = stages_of(model.architecture, layout)[layout.coordinates(rank)[1]]
    plan = trainer_bytes(model, layout, stage, dp_rank)
    assert (plan.parameters, plan.gradients, plan.optimizer) == (parameters, gradients, optimizer)


def optimizer_bytes(optimizer) -> int:
    """Main copies and moments, each tensor once."""
    found: dict[int, int] = {}
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        states = part.optimizer.state.values()
        tensors = [t for state in states for t in state.values() if torch.is_tensor(t)]
        tensors += [p for group in part.shard_fp32_from_float16_groups for p in group if p is not None]
        found |= {id(t): t.nbytes for t in tensors}
    return sum(found.values())
