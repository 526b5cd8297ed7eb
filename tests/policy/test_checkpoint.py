"""A checkpoint at the layout that wrote it and at others, against the run that was not interrupted."""

from pathlib import Path

import pytest
import torch

from tests.support.checkpoints import make_checkpoint
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.slow

CASES = {  # the first layout (tp,pp,sp,vpp) writes; what four ranks leave over is data-parallel
    "tied": ("qwen3", "float32", ["2,2,1,1", "1,1,0,1", "4,1,1,1", "1,2,0,2"]),
    "hybrid": ("nemotron_h", "float32", ["2,2,1,1", "1,1,0,1", "4,1,1,1"]),
    "bf16": ("qwen3", "bfloat16", ["2,1,1,1", "1,2,0,1"]),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    scratch = tmp_path_factory.mktemp("checkpoints")
    arguments = []
    for name, (family, dtype, layouts) in CASES.items():
        # a vocabulary that is padded differently at every TP size
        tied = dict(tie_word_embeddings=True, vocab_size=127)
        shape = tied if family == "qwen3" else dict(num_key_value_heads=4, n_groups=4)  # for TP 4
        folder = make_checkpoint(scratch / f"{name}-hf", family, **shape)
        arguments.append(f"{name}:{folder}:{dtype}:{';'.join(layouts)}")
    run_ranks("tests.policy.checkpoint_worker", 4, scratch, *arguments)
    return scratch


@pytest.fixture(params=CASES)
def case(request, results):
    _, dtype, layouts = CASES[request.param]
    return dtype, layouts, torch.load(results / f"{request.param}.pt")


def test_loaded_weights_are_the_saved_ones_at_every_layout(case):
    _, layouts, results = case
    saved, _ = results["undisturbed"]
    for layout in layouts:
        loaded, _ = results[layout]
        assert loaded.keys() == saved.keys()
        assert all(torch.equal(loaded[name], saved[name]) for name in saved), layout


def test_training_goes_on_as_if_undisturbed(case):
    dtype, layouts, results = case
    saved, (*steps, trained) = results["undisturbed"]
    assert max(float((trained[n] - saved[n]).abs().max()) for n in saved) > 1e-4
    for layout in layouts:
        _, (*resumed, after) = results[layout]
        if layout == layouts[0]:
            assert resumed == steps
            assert all(torch.equal(after[name], trained[name]) for name in trained)
        elif dtype == "float32":
            for one, other in zip(resumed, steps, strict=True):
                assert one["lr"] == other["lr"]
                assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)
                assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)
            # Adam's moments came along: one lost would change a step by its whole size, 1e-4 and more
            assert all(torch.allclose(after[n], trained[n], atol=1e-5) for n in trained), layout


def test_ranks_share_the_writing_where_there_is_room_to_gather(case):
    """TP and PP divide a checkpoint already; the data-parallel ranks of bf16's layout divide it further."""
    _, layouts, results = case
    shared, alone = results["written"]
    assert shared.keys() == alone.keys() == {"0", "1", "2", "3"}
    assert sum(shared.values()) == pytest.approx(sum(alone.values()), rel=0.05)
    if layouts[0].startswith("2,1"):
        assert max(alone.values()) > 5 * min(alone.values())
        assert max(shared.values()) < 1.2 * min(shared.values())


def test_without_room_the_checkpoint_is_the_same(case):
    results = case[2]
    weights, (*steps, trained) = results["one writer"]
    saved, (*undisturbed, expected) = results["undisturbed"]
    assert steps == undisturbed
    assert all(torch.equal(weights[n], saved[n]) and torch.equal(trained[n], expected[n]) for n in saved)


def test_the_newest_are_kept(case):
    assert case[2]["kept"] == ["step_000002", "step_000003"]


def test_a_gradient_that_is_not_finite_takes_no_step(case):
    said, unchanged = case[2]["not finite"]
    assert "the gradient norm is" in said
    assert "no step was taken" in said
    assert unchanged


def test_updates_that_are_not_finite_are_skipped_as_often_as_allowed(case):
    found = case[2]["skipped"]
    assert found["skipped"] == [True, False, True]
    assert found["unchanged"] == [True, False, True]
    assert found["updates"] == [0, 1, 1]
    assert "in 2 updates in a row" in found["said"]
