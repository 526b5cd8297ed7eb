"""Every recipe for GPUs is planned without a network, and fits where its first lines say it runs."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from igrpo_mcore.config.load import load_config
from igrpo_mcore.planning import planned_step
from igrpo_mcore.planning.catalogue import CATALOGUE, catalogue_config
from igrpo_mcore.planning.plan import changed

RECIPES = Path(__file__).parents[2] / "recipes"
GPUS = {
    "igrpo_r1_distill_7b": 8,
    "igrpo_r1_distill_14b": 16,
    "igrpo_openreasoning_7b": 8,
    "rgra_qwen25_05b": 1,
    "rgra_qwen25_15b": 1,
    "rgra_llama32_1b": 1,
}
PARAMETERS = {  # of each model's page on the hub, in billions; tied heads count once
    "Qwen/Qwen2.5-0.5B-Instruct": 0.494,
    "Qwen/Qwen2.5-1.5B-Instruct": 1.544,
    "meta-llama/Llama-3.2-1B-Instruct": 1.236,
}


@pytest.mark.parametrize("name", GPUS)
def test_it_fits_where_it_says(name: str) -> None:
    config = load_config(RECIPES / f"{name}.yaml")
    assert config.model.path in CATALOGUE
    step = planned_step(config, gpu="h100-80g", world=GPUS[name])
    assert step.fits


@pytest.mark.parametrize("path", PARAMETERS)
def test_shapes_have_the_published_number_of_parameters(path: str) -> None:
    import torch

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(catalogue_config(path))
    assert model.num_parameters() / 1e9 == pytest.approx(PARAMETERS[path], abs=6e-4)


def test_adapters_take_the_place_of_the_optimizer() -> None:
    """Counted from the shapes of Qwen2.5-7B at TP 2, r = 16: q, k, v, o, gate, up, down of 28 layers."""
    config = load_config(RECIPES / "igrpo_7b.yaml")
    full = planned_step(config, gpu="h100-80g", world=8)
    lora = planned_step(changed(config, {"lora.rank": 16}), gpu="h100-80g", world=8)
    hidden, ffn, kv = 3584, 18944, 512
    column = (hidden / 2 + hidden) + 2 * (kv / 2 + hidden) + 2 * (ffn / 2 + hidden)
    row = (hidden / 2 + hidden) + (ffn / 2 + hidden)
    adapters = 16 * 16 * 28 * (column + row)
    assert lora.memory.phase("update").parts["optimizer"] == adapters
    assert full.memory.phase("update").parts["optimizer"] > 10 * adapters
    before, after = (step.memory.phase("update").parts for step in (full, lora))
    assert {k: v for k, v in before.items() if k != "optimizer"} == {
        k: v for k, v in after.items() if k != "optimizer"
    }
