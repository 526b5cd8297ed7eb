"""Several updates of a step against PPO written out: transformers, autograd and torch's AdamW."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.policy.oracle import logprobs_of
from tests.support.checkpoints import make_checkpoint
from tests.support.ranks import run_ranks
from tests.trainer.passes_worker import CASES, EPS, LR, OTHER_KINDS, TEMPERATURE, mini_batches_of

pytestmark = pytest.mark.slow

CLIP = 0.2


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    root = tmp_path_factory.mktemp("passes")
    checkpoint = make_checkpoint(root / "checkpoint", "qwen3", layers=2)
    run_ranks("tests.trainer.passes_worker", 1, checkpoint, root / "found.pt")
    return checkpoint, torch.load(root / "found.pt", weights_only=False)


def written_out(checkpoint, mini_batches: int, passes: int) -> tuple[list[dict], dict]:
    """The updates' metrics over tokens whose advantage is not 0, and the weights after them."""
    from transformers.core_model_loading import revert_weight_conversion

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, eps=EPS, weight_decay=0.0)
    batches = mini_batches_of(mini_batches)
    with torch.no_grad():
        old = [[logprobs_of(model, s, TEMPERATURE) for s in batch] for batch in batches]
    updates = []
    for _ in range(passes):
        for batch, started_from in zip(batches, old, strict=True):
            loss, kl, clipped = torch.zeros(()), [], []
            for sequence, old_T in zip(batch, started_from, strict=True):
                if not sequence.advantage:
                    continue
                logprob_T = logprobs_of(model, sequence, TEMPERATURE)
                ratio_T = (logprob_T - old_T).exp()
                bounded_T = ratio_T.clamp(1 - CLIP, 1 + CLIP) * sequence.advantage
                loss = loss - sequence.weight * torch.min(ratio_T * sequence.advantage, bounded_T).sum()
                delta_T = (old_T - logprob_T).detach()
                kl.append(delta_T.exp() - delta_T - 1)
                clipped.append((ratio_T * sequence.advantage > bounded_T).float().detach())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates.append(
                {
                    "loss": float(loss.detach()),
                    "kl": float(torch.cat(kl).mean()),
                    "clip": float(torch.cat(clipped).mean()),
                }
            )
    return updates, revert_weight_conversion(model, dict(model.named_parameters()))


@pytest.mark.parametrize("case", CASES)
def test_updates_and_weights_equal_ppo_written_out(found, case):
    checkpoint, ours = found
    mini_batches, passes, _ = CASES[case]
    updates, weights = written_out(checkpoint, mini_batches, passes)
    assert len(ours[case]["updates"]) == ours[case]["counted"] == mini_batches * passes
    for one, expected in zip(ours[case]["updates"], updates, strict=True):
        assert one["lr"] == pytest.approx(LR)
        assert one["loss"] == pytest.approx(expected["loss"], abs=1e-4)
        assert one["kl"] == pytest.approx(expected["kl"], rel=1e-2, abs=1e-6)
        share = one["clip_fraction_low"] + one["clip_fraction_high"]
        assert share == pytest.approx(expected["clip"], abs=0.02)
    started = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).state_dict()
    for name, value in weights.items():
        moved = float((value.detach() - started[name]).abs().max())
        assert float((ours[case]["weights"][name] - value.detach()).abs().max()) < 0.02 * moved, name


def test_kl_and_clip_fraction_are_0_by_construction_with_one_update_only(found):
    _, ours = found
    (only,) = ours["one update"]["updates"]
    assert only["kl"] == only["clip_fraction_low"] == only["clip_fraction_high"] == 0
    first, *later = ours["several updates"]["updates"]
    assert first["kl"] < 1e-8  # the first update starts from π_old, up to rounding
    assert all(update["kl"] > 1e-4 for update in later)
    assert any(update["clip_fraction_low"] + update["clip_fraction_high"] > 0 for update in later)


def test_old_logprobs_are_taken_once_before_all_updates(found):
    _, ours = found
    for case, (mini_batches, passes, _) in CASES.items():
        events = [event for event in ours[case]["events"] if event != "sleep"]
        assert events == ["logprobs"] * mini_batches + ["update"] * mini_batches * passes + ["push"]


def test_every_objective_takes_the_same_gradient_where_a_step_is_one_update(found):
    """The ratio is 1 there, so what differs is the loss: its value is that of -Â or of -Â log π."""
    checkpoint, ours = found
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    (batch,) = mini_batches_of(1)
    trained = [sequence for sequence in batch if sequence.advantage]
    plain, with_log = torch.zeros(()), torch.zeros(())
    for sequence in trained:
        factor = sequence.weight * sequence.advantage
        plain = plain - factor * len(sequence.completion_ids)
        with_log = with_log - factor * logprobs_of(model, sequence, TEMPERATURE).sum()
    with_log.backward()
    norm = float(torch.stack([p.grad.norm() for p in model.parameters()]).norm())
    losses = {"reinforce": float(with_log.detach()), "cispo": float(with_log.detach()), "gspo": float(plain)}
    assert abs(losses["cispo"] - losses["gspo"]) > 1e-2
    for kind in OTHER_KINDS:
        (update,) = ours[kind]["updates"]
        assert update["loss"] == pytest.approx(losses[kind], abs=1e-5), kind
        assert update["grad_norm"] == pytest.approx(norm, rel=1e-4), kind
        assert update["clip_fraction_low"] == update["clip_fraction_high"] == 0, kind
        assert 0 < update["entropy"] < math.log(128), kind
        assert update["head_rows"] == sum(len(s.completion_ids) for s in trained), kind
    (clip,) = ours["one update"]["updates"]
    assert (clip["loss"], clip["grad_norm"]) == pytest.approx((float(plain), norm), rel=1e-4)
