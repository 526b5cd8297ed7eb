"""Weights through real ranks and a real vLLM: in, across, out, damaged, and over and over."""

import json
from pathlib import Path

import pytest

from tests.support.checkpoints import FAMILIES, make_checkpoint
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.slow


def result_of(output: str):
    return json.loads(next(line for line in output.splitlines() if line.startswith("RESULT "))[7:])


@pytest.fixture(scope="module")
def layouts(tmp_path_factory) -> dict:
    """Every assertion on values is made in the ranks; here, what they measured."""
    scratch = tmp_path_factory.mktemp("layouts")
    return result_of(run_ranks("tests.weights.layouts_worker", 4, scratch))


def test_round_trips_are_bit_exact_and_move_the_minimum(layouts):
    cases = {name: case for name, case in layouts.items() if "pushed" in case}
    families_by_layout, tied, uneven, virtual_stages = 5 * len(FAMILIES), 2, 2, 1
    assert len(cases) == families_by_layout + tied + uneven + virtual_stages
    for name, case in cases.items():
        for moved, minimum in case["pushed"].values():
            assert minimum <= moved <= 1.1 * minimum, name
    # TP2 PP2 -> two engines at TP 2, one at TP 4, against four at TP 1, where each rank gathers everything
    for family in FAMILIES:
        by_rollout_tp = layouts[f"{family} TP2 PP2 VPP1"]["pushed"]
        assert by_rollout_tp["2"][0] <= 0.5 * by_rollout_tp["1"][0]
        assert by_rollout_tp["4"][0] <= 0.5 * by_rollout_tp["1"][0]


def test_megatrons_planner_moves_as_many_bytes(layouts):
    ours = layouts["llama TP2 PP2 VPP1"]["pushed"]
    for rollout_tp in (1, 2):
        assert layouts[f"megatron planner {rollout_tp}"]["moved"] == ours[str(rollout_tp)][1]


def test_damaged_checkpoints_are_refused_on_every_rank(layouts):
    missing, misshapen, surplus = layouts["refusals"]["said"]
    assert "lacks tensor model.layers.1.mlp.gate_proj.weight" in missing
    assert "model.layers.1.mlp.gate_proj.weight of shape [64, 128]" in misshapen
    assert "model.layers.9.mlp.gate_proj.weight that its config does not ask for" in surplus


def test_tp4_pp2(tmp_path):
    cases = result_of(run_ranks("tests.weights.layouts_worker", 8, tmp_path))
    assert set(cases) == {f"{family} TP4 PP2 VPP1" for family in FAMILIES}


@pytest.fixture(scope="module")
def engines(tmp_path_factory) -> dict:
    """One launch at TP2 PP2 with two engines at TP 2: pushes, and exports of every dense family."""
    folder = make_checkpoint(tmp_path_factory.mktemp("engines") / "pushed", "qwen3", layers=2)
    return result_of(run_ranks("tests.weights.engine_worker", 4, folder, 2, 2, 2, 100, *FAMILIES))


def test_two_engines_follow_the_policy_and_a_hundred_pushes_leak_nothing(engines):
    for rank in engines["ranks"]:
        assert rank["before"] < 1e-4
        assert rank["after"] < 1e-4, "a second push after an update is stale"
        assert rank["growth_bytes"] < 4e6  # after the first 20; a push carries 0.8 MB to a rank


@pytest.mark.parametrize("family", FAMILIES)
def test_exports_are_the_policy_in_transformers_and_in_vllm(engines, family):
    found = engines["exports"][family]
    assert found["transformers"] < 1e-4
    assert found["vllm"] < 1e-4
    assert found["unlike the source"] > 0.1, "the checkpoint it came from would pass as well"


@pytest.mark.parametrize("family", ["qwen3", "nemotron_h"])
def test_damage_is_named(tmp_path, family):
    folder = make_checkpoint(tmp_path / family, family)
    named = result_of(run_ranks("tests.weights.verify_worker", 1, folder))
    assert named.pop("clean") == named.pop("pushed again") == []
    assert all(read == tensors for read, tensors in named.pop("read_back").values())
    assert named.pop("export differs from policy") == named.pop("export in vLLM differs") == []
    assert named.pop("export in transformers") < 1e-4
    assert named.pop("not pushed yet") == (47 if family == "qwen3" else 23)
    if family == "qwen3":
        mlp, attention = "model.layers.2.mlp.", "model.layers.1.self_attn."
        expected: dict = {
            "gate and up": [mlp + "gate_proj.weight", mlp + "up_proj.weight"],
            "key and value": [attention + "k_proj.weight", attention + "v_proj.weight"],
            "transposed": [attention + "o_proj.weight"],
            "head": ["lm_head.weight"],
            "embedding": ["model.embed_tokens.weight"],
            "policy differs from checkpoint": [
                "model.layers.0.mlp.gate_proj.weight",
                "model.layers.0.mlp.up_proj.weight",
                *(f"model.layers.1.self_attn.{x}_proj.weight" for x in "kqv"),
            ],
        }
        layer, dropped = "model.layers.3.", "model.norm.weight"
    else:
        mixer = "backbone.layers.0.mixer."
        expected = {
            "changed D": [mixer + "D"],
            "changed A_log": [mixer + "A_log"],
            "in_proj blocks": [mixer + "in_proj.weight"],
            "conv1d": [mixer + "conv1d.weight"],
            "policy differs from checkpoint": [mixer + "D"],
        }
        layer, dropped = "backbone.layers.0.", "mixer.D"
    stale = named.pop("stale layer")
    assert len(stale) == (11 if family == "qwen3" else 9)
    assert all(name.startswith(layer) for name in stale)
    assert dropped in named.pop("dropped")
    assert named == expected


@pytest.mark.parametrize("family", ["qwen3", "nemotron_h"])
def test_what_sleep_does_not_keep_is_all_pushed(tmp_path, family):
    """Filled with NaN, then pushed: the same weights, the same completions."""
    folder = make_checkpoint(tmp_path / family, family)
    named = result_of(run_ranks("tests.weights.verify_worker", 1, folder, "poison"))
    assert named["poisoned weights"] > 0
    assert named["poisoned"] > 0
    assert named["pushed after poison"] == []
    assert named["says the same"]


def test_a_push_holds_what_is_planned(tmp_path):
    """A 300 M-parameter random model at TP 2, pushed to two engines at TP 1, as the kernel counts it."""
    ordinary, small = result_of(run_ranks("tests.weights.memory_worker", 2, Path(tmp_path)))
    for rank in ordinary:  # two buckets, vLLM's own loading included
        assert rank["parameters"] > 300e6
        assert rank["accounted_bytes"] <= rank["bound_bytes"] <= 2 * rank["bucket_bytes"]
        assert rank["extra_bytes"] <= 2.2 * rank["bucket_bytes"]
    for rank in small:  # one module is larger than a bucket: it and its neighbour
        assert rank["bucket_bytes"] < rank["module_bytes"] <= rank["bound_bytes"]
        assert (
            rank["accounted_bytes"] <= rank["bound_bytes"] <= rank["module_bytes"] + 2 * rank["bucket_bytes"]
        )
        # vLLM loads into a fresh copy of the module, and on the CPU packs that into another
        assert rank["extra_bytes"] <= 1.1 * (rank["bound_bytes"] + 2 * rank["module_bytes"])
