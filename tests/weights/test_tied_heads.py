"""A head that is the embedding: vLLM's CPU build keeps a packed copy of it, which every push must refresh."""

import pytest

from tests.support.ranks import run_ranks
from tests.weights.test_weights_in_ranks import result_of

pytestmark = pytest.mark.slow


@pytest.mark.timeout(900)
@pytest.mark.parametrize("rollout_tp", [1, 2])
def test_two_pushes_from_every_layout_are_what_transformers_computes(rollout_tp, tmp_path):
    """Llama, Qwen2, Qwen3 x tied, untied x TP 1, 2 x PP 1, 2; each differs from transformers by rounding."""
    cases = result_of(run_ranks("tests.weights.tied_worker", 4, tmp_path, rollout_tp, timeout_s=850))
    without = {name: cases.pop(name) for name in list(cases) if name.endswith("without the refresh")}
    drifted = {name: cases.pop(name) for name in list(cases) if name.endswith("with another head")}
    assert len(cases) == 3 * 2 * 4
    for name, ranks in cases.items():
        for before, after, differing in ranks:
            assert before < 1e-4, name
            assert after < 1e-4, f"{name}: a second push after an update is stale"
            assert differing == [], name
    assert len(without) == 3 * 2
    for name, ranks in without.items():
        stale = ["lm_head.weight"] if " tied" in name else []
        assert all(differing == stale for differing in ranks), name
    assert len(drifted) == 3 * 2
    for name, ranks in drifted.items():  # ranks of the last stage send themselves their own copy
        both = ["lm_head.weight", "model.embed_tokens.weight"] if " tied" in name else []
        assert all(differing == both for differing in ranks), name
