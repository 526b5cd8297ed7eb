"""What a plan says of one rank against what the policy's own code makes there, at the recipes' true widths.

A few layers are as good as all: ``python -m tests.planning.true_sizes RECIPE`` takes all (docs/plan.md).
"""

import pytest
from transformers import AutoConfig

from igrpo_mcore.config.load import load_config
from igrpo_mcore.config.schema import Config
from igrpo_mcore.planning.catalogue import CATALOGUE, PlannedModel
from tests.planning.support import planned
from tests.planning.test_plan import RECIPES
from tests.planning.true_sizes import Line, beside_plan, true_sizes

CASES = {
    "igrpo_14b.yaml": (16, {"num_hidden_layers": 2}),
    "igrpo_nemotron_h_8b.yaml": (8, {"hybrid_override_pattern": "M-*M"}),
}


def of_few_layers(recipe: str, **layers: object) -> tuple[Config, PlannedModel]:
    config = load_config(RECIPES / recipe)
    fields = CATALOGUE[config.model.path] | layers
    model_type = fields.pop("model_type")
    return config, planned(AutoConfig.for_model(model_type, **fields))


@pytest.fixture(scope="module", params=[(recipe, tp) for recipe in CASES for tp in (None, 8)], ids=str)
def lines(request) -> dict[str, Line]:
    recipe, tp = request.param
    world, layers = CASES[recipe]
    config, model = of_few_layers(recipe, **layers)
    config.parallel.tp = tp or config.parallel.tp
    found = beside_plan(true_sizes(config, model, world), config, model, world)
    return {line.what: line for line in found}


@pytest.mark.parametrize(
    "what", ["parameters, bytes", "gradients, bytes", "optimizer, bytes", "logits, bytes"]
)
def test_bytes_are_those_that_are_planned(lines, what):
    assert lines[what].counted == lines[what].planned


def test_flop_are_those_that_are_planned(lines):
    """Not counted as the model's: padded columns of the head, 512 of 152,064 at TP 8. Backward: attention's
    scores are made anew, 5 products where a plan has 4."""
    for what in ("forward FLOP", "of them linear layers and LM head", "of them attention"):
        assert lines[what].ratio == pytest.approx(1, rel=4e-3), what
    assert 0.94 < lines["backward FLOP"].ratio <= 1.001


def test_saved_bytes_of_each_layer_are_those_of_its_list(lines):
    """PyTorch's kernels by their own list; of Mamba only Transformer-Engine-like kernels have one, and the
    PyTorch scan keeps several times as much."""
    torch_lists = [line for what, line in lines.items() if what.endswith("as torch kernels")]
    assert len(torch_lists) == 2
    for line in torch_lists:
        assert line.ratio == pytest.approx(1, rel=0.02), line
    if "of them Mamba's scan" in lines:
        assert lines["saved by one Mamba layer, as fused kernels"].ratio < 0.5
        assert lines["of them Mamba's scan"].ratio == pytest.approx(1, rel=1e-3)
