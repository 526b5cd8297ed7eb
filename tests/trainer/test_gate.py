"""The gate on a real policy and a real vLLM: faults are refused by name, rounding is not."""

import json

import pytest

from igrpo_mcore.config.parity_limits import DEFAULTS
from igrpo_mcore.config.schema import DType
from tests.support.checkpoints import make_checkpoint
from tests.support.ranks import run_ranks
from tests.trainer.gate_worker import STALE, SWAPPED

pytestmark = pytest.mark.slow

RECIPE = """
model: {{path: {checkpoint}, dtype: {dtype}}}
data: {{path: {root}/problems.jsonl}}
rollout:
  {{num_drafts: 4, num_refinements: 4, temperature: 0.9, max_prompt_tokens: 64, max_completion_tokens: 24}}
reward: {{weights: {{"tests.support.rewards:digit_share": 1.0}}}}
train: {{steps: 1, prompts_per_step: 8}}
run: {{name: gate, dir: {root}, tensorboard: false}}
"""


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def gate(request, tmp_path_factory) -> tuple[str, dict]:
    root = tmp_path_factory.mktemp(request.param)
    # bfloat16 is rounding: an ordinary model, not one sharpened until every logit is large
    sharpen = 4.0 if request.param == "float32" else 1.5
    checkpoint = make_checkpoint(root / "checkpoint", "qwen3", sharpen=sharpen)
    problems = [f'{{"problem": "{i}+{i}=", "answer": "{2 * i}"}}\n' for i in range(8)]
    (root / "problems.jsonl").write_text("".join(problems))
    recipe = root / "recipe.yaml"
    recipe.write_text(RECIPE.format(checkpoint=checkpoint, dtype=request.param, root=root))
    run_ranks("tests.trainer.gate_worker", 1, recipe, root / "found.json")
    return request.param, json.loads((root / "found.json").read_text())


def test_a_healthy_push_passes_also_after_an_update(gate):
    dtype, found = gate
    limits = DEFAULTS[DType(dtype), False]
    for case in ("healthy", "healthy after an update"):
        said, quantile, mean, _ = found[case]
        assert said == ""
        assert 0 < quantile <= limits.quantile
        assert 0 < mean <= limits.mean


def test_a_stale_tensor_a_swapped_layer_and_a_wrong_temperature_are_refused(gate):
    dtype, found = gate
    assert f"these weights differ between trainer and sampler: {', '.join(SWAPPED)};" in found["swapped"][0]
    assert "differ from the trainer's by" in found["temperature"][0]
    if dtype == "float32":
        assert f"these weights differ between trainer and sampler: {STALE};" in found["stale"][0]
        assert "points at the temperature" in found["temperature"][0]
    else:
        # one projection changed by 5 % moves log-probs less than rounding may: `igrpo verify` finds it
        assert found["stale"][0] == ""
        assert found["stale"][2] > 2 * found["healthy"][2]
