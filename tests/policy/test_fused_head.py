"""``model.fused_head`` in one rank: what the plain head computes, from logits of a few rows at a time.

Several ranks: the cases in -fused of ``test_layouts``.
"""

from functools import partial

import pytest
import torch
from igrpo_kernels import Objective, linear_policy_loss, linear_token_logprobs

from igrpo_mcore.config.schema import Config, Correction, ObjectiveConfig
from igrpo_mcore.families import architecture_of
from igrpo_mcore.objective.correction import ImportanceInUpdate
from igrpo_mcore.policy import head
from igrpo_mcore.policy.policy import Policy
from tests.planning.support import lone_rank, options
from tests.policy.sequences import shift, training_batch
from tests.support.checkpoints import hf_config

OBJECTIVES = {
    "clip": Objective(kl_coef=0.05, entropy_coef=0.01, temperature=0.8),
    "gspo": Objective(kind="gspo", temperature=0.8),
}


class Shapes:
    """Of every [rows, columns] matrix that a loss kernel is given logits in."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, kernel):
        def seen(logits_TV, *args, **kwargs):
            self.rows.append(logits_TV.shape[0])
            return kernel(logits_TV, *args, **kwargs)

        return seen


def run(config: Config, tied: bool, fused: bool, chunk: int, monkeypatch) -> dict:
    config.model.fused_head = fused
    config.rollout.temperature = 0.8
    config.train.micro_batch_tokens = 60
    monkeypatch.setattr(head, "linear_policy_loss", partial(linear_policy_loss, chunk_tokens=chunk))
    monkeypatch.setattr(head, "linear_token_logprobs", partial(linear_token_logprobs, chunk_tokens=chunk))
    architecture = architecture_of(hf_config("qwen3", layers=2, tie_word_embeddings=tied), "float32")
    found: dict = {}
    with lone_rank(config, 0, 1):
        policy = Policy(config, architecture, updates=1)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in policy.chunks[0].parameters():
                parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.2, generator=generator)
        policy.weights_loaded()
        batch = training_batch()
        found["logprobs"] = torch.cat(list(policy.logprobs(batch).values()))
        logprobs = policy.logprobs(batch)
        old = {i: logprob - shift(i) for i, logprob in logprobs.items()}
        ref = {i: logprob + 0.1 for i, logprob in logprobs.items()}

        def gradient() -> torch.Tensor:
            return torch.cat([p.main_grad.flatten().clone() for p in policy.chunks[0].parameters()])

        for name, objective in OBJECTIVES.items():
            loss, metrics = policy.accumulate_gradient(batch, objective, old, ref)
            found[name] = (loss, gradient(), metrics)
        for kind in (Correction.token, Correction.sequence):
            own = ImportanceInUpdate(ObjectiveConfig(correction=kind))
            loss, metrics = policy.accumulate_gradient(batch, OBJECTIVES["clip"], None, ref, own)
            found[kind] = (loss, gradient(), metrics)
    return found


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_equals_the_plain_head(tied: bool, monkeypatch):
    plain, fused = (run(options(dtype="float32"), tied, which, 8, monkeypatch) for which in (False, True))
    torch.testing.assert_close(fused.pop("logprobs"), plain.pop("logprobs"), rtol=0, atol=1e-5)
    for name, (loss, gradient, metrics) in plain.items():
        ours, own_gradient, own_metrics = fused[name]
        assert ours == pytest.approx(loss, abs=1e-5), name
        scale = float(gradient.abs().max())
        assert scale > 1e-3
        torch.testing.assert_close(own_gradient, gradient, rtol=0, atol=1e-5 * scale, msg=name)
        assert own_metrics == pytest.approx(metrics, abs=1e-5), name


def test_no_more_rows_of_logits_are_made_at_once_than_a_chunk_has(monkeypatch):
    from igrpo_kernels import ops

    shapes = Shapes()
    monkeypatch.setattr(ops, "row_stats", shapes(ops.row_stats))
    run(options(dtype="float32"), False, True, 8, monkeypatch)
    assert max(shapes.rows) == 8
    shapes.rows.clear()
    run(options(dtype="float32"), False, False, 8, monkeypatch)
    assert max(shapes.rows) > 8
