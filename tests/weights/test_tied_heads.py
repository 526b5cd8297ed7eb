"""Tied and untied heads through every small layout, pushed twice, against transformers."""

import json

import pytest

from tests.support.ranks import run_ranks

pytestmark = pytest.mark.slow

FAMILIES = ("llama", "qwen2", "qwen3")
LAYOUTS = [f"TP{tp} PP{pp} -> TP{rollout}" for tp in (1, 2) for pp in (1, 2) for rollout in (1, 2)]
SHARED_KV = [f"llama one kv head TP1 PP{pp} -> TP{rollout}" for pp in (1, 2) for rollout in (1, 2)]


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict:
    """One launch of four ranks for all cases."""
    output = run_ranks("tests.weights.tied_worker", 4, tmp_path_factory.mktemp("tied"), timeout_s=900)
    return json.loads(next(line for line in output.splitlines() if line.startswith("RESULT "))[7:])


@pytest.mark.parametrize("head", ["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_push_is_what_transformers_reads(cases, family, head):
    for layout in LAYOUTS:
        check(cases[f"{family} {head} {layout}"])


@pytest.mark.parametrize("case", SHARED_KV)
def test_engine_ranks_may_share_a_key_value_head(cases, case):
    check(cases[case])


def check(found: dict) -> None:
    assert found["first push"] < 1e-4
    assert found["after an update"] < 1e-4
    assert found["differ"] == found["not read back"] == []
    assert found["head"] == 1, "the head has a line of its own, tied or not"


def test_a_tied_head_that_vllm_leaves_stale_is_named(cases):
    stale = {case: found for case, found in cases.items() if case.startswith("stale ")}
    assert len(stale) == 2 * (len(FAMILIES) + 1)
    for case, found in stale.items():
        assert found["difference"] > 0.1, case
        assert found["differ"] == ["lm_head.weight"], case
        assert found["differ after the next"] == [], case
