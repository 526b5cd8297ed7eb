"""The LM head on response rows only is the same step as on every row."""

import pytest
import torch

from tests.policy.sequences import training_batch
from tests.support.checkpoints import make_checkpoint
from tests.support.ranks import run_ranks


@pytest.mark.slow
def test_response_rows_only_equal_every_row(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "qwen3", "qwen3", tie_word_embeddings=True)
    run_ranks("tests.policy.head_rows_worker", 2, checkpoint, 2, tmp_path / "found.pt")
    found = torch.load(tmp_path / "found.pt")
    chosen, every = found["chosen"], found["every"]
    batch = training_batch()
    assert chosen["rows"] == sum(len(s.completion_ids) for s in batch)
    assert every["rows"] >= sum(len(s) for s in batch) > chosen["rows"]
    assert chosen["loss"] == pytest.approx(every["loss"], abs=1e-6)
    for name, gradient in every["gradients"].items():
        assert float(gradient.abs().max()) > 0, name
        torch.testing.assert_close(chosen["gradients"][name], gradient, rtol=0, atol=1e-6, msg=name)
