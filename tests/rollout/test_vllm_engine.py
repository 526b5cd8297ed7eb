"""Real vLLM against transformers: log-probs, greedy tokens, pushes, engines side by side.

Two launches serve all assertions; see ``engine_worker``.
"""

import json
from pathlib import Path

import pytest

from tests.support.checkpoints import FAMILIES, make_checkpoint
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.slow

LAUNCHES = {2: ["qwen2:2", "llama:1", "mistral:1", "nemotron_h:2"], 4: ["qwen3:2"]}
"""Ranks of a launch -> FAMILY:TP one after another: engines of TP 2 and of TP 1, then two of TP 2."""
CASES = [(nproc, *case.split(":")) for nproc, cases in LAUNCHES.items() for case in cases]


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    """What every rank found, by family."""
    scratch = tmp_path_factory.mktemp("engines")
    for family in FAMILIES:
        make_checkpoint(scratch / family, family, seed=1)
    found = {}
    for nproc, cases in LAUNCHES.items():
        output = run_ranks("tests.rollout.engine_worker", nproc, scratch, *cases)
        assert "leaked" not in output
        assert "Traceback" not in output
        for case in cases:
            found[case.split(":")[0]] = read(scratch, case.replace(":", "-"), nproc)
    return found


def read(scratch: Path, case: str, nproc: int) -> list[dict]:
    return [json.loads((scratch / f"{case}-{rank}.json").read_text()) for rank in range(nproc)]


@pytest.mark.parametrize(("nproc", "family", "tp"), CASES)
@pytest.mark.parametrize("push", ["first", "second"])
def test_engine_agrees_with_transformers_after_each_push(findings, nproc, family, tp, push):
    for rank in findings[family]:
        result = rank[push]
        assert result["logprob_difference"] <= 1e-4
        assert result["greedy_equal"]
        assert result["endings_right"]
        assert result["text_is_decoded"]
    assert sum(rank[push]["stopped"] for rank in findings[family]) > 0
    assert sum(rank[push]["truncated"] for rank in findings[family]) > 0


@pytest.mark.parametrize(("nproc", "family", "tp"), CASES)
def test_samples_follow_the_seeds_alone(findings, nproc, family, tp):
    for rank in findings[family]:
        assert rank["first"]["same_by_seed"]
        assert rank["first"]["other_by_other_seed"]
        assert rank["first"]["distinct_samples"] > 12  # of 24
        assert rank["first"]["tokens"] != rank["second"]["tokens"]


@pytest.mark.parametrize(("nproc", "family", "tp"), CASES)
def test_ranks_of_an_engine_agree_and_engines_are_apart(findings, nproc, family, tp):
    ranks = findings[family]
    tp = int(tp)
    assert [r["engine"] for r in ranks] == [i // tp for i in range(nproc)]
    assert {r["engines"] for r in ranks} == {nproc // tp}
    for i, rank in enumerate(ranks):
        assert rank["first"]["tokens"] == ranks[i // tp * tp]["first"]["tokens"]
        assert rank["scored_by_first_rank"]
        assert rank["scorer_error"] == "nothing to score"
    if nproc > tp:
        assert ranks[0]["first"]["tokens"] != ranks[tp]["first"]["tokens"]


@pytest.mark.parametrize(("nproc", "family", "tp"), CASES)
def test_incomplete_and_surplus_pushes_are_refused_by_name(findings, nproc, family, tp):
    for rank in findings[family]:
        name, message = rank["refused"]
        assert name in message


@pytest.mark.parametrize(("nproc", "family", "tp"), CASES)
def test_trainer_state_survives_and_nothing_is_left(findings, nproc, family, tp):
    for rank in findings[family]:
        assert rank["state_kept"]
        assert rank["shared"] == []  # gloo alone: nothing spins, no name is taken
        assert not rank["group_left"]
