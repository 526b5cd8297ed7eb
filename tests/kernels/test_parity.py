"""Parity with what others compute on a padded batch [B, L]: TRL's formulae, and Liger's Triton kernel."""

import os
from dataclasses import dataclass

import pytest
import torch
from igrpo_kernels import Objective, PolicyLoss, policy_loss

from tests.kernels.oracle import DEVICE, relative

B, L, V = 3, 7, 60
TEMPERATURE = 0.8


@dataclass
class PaddedBatch:
    logits_BLV: torch.Tensor
    target_BL: torch.Tensor
    mask_BL: torch.Tensor
    old_BL: torch.Tensor
    ref_BL: torch.Tensor
    importance_BL: torch.Tensor
    advantage_B: torch.Tensor


@pytest.fixture
def batch() -> PaddedBatch:
    gen = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=gen)

    logits = randn(B, L, V) * 2
    target = torch.randint(0, V, (B, L), generator=gen)
    logp = (logits / TEMPERATURE).log_softmax(-1).gather(2, target[..., None])[..., 0]
    mask = (torch.arange(L) < torch.tensor([L, 4, 2])[:, None]).float()
    importance = torch.rand(B, L, generator=gen) * 2
    advantage = torch.tensor([1.0, -0.7, 0.4])
    return PaddedBatch(
        logits, target, mask, logp + 0.3 * randn(B, L), logp + 0.3 * randn(B, L), importance, advantage
    )


def weights(aggregation: str, mask_BL: torch.Tensor) -> torch.Tensor:
    """Weight of each token: GRPO's mean of means, DAPO's mean over tokens, Dr. GRPO's fixed length."""
    return {
        "grpo": mask_BL / (mask_BL.sum(1, keepdim=True) * B),
        "dapo": mask_BL / mask_BL.sum(),
        "dr_grpo": mask_BL / (B * L),
        "cispo": mask_BL / mask_BL.sum(),
    }[aggregation]


def ours(batch: PaddedBatch, aggregation: str, objective: Objective, logits_BLV: torch.Tensor) -> PolicyLoss:
    rows = [batch.target_BL, batch.old_BL, batch.ref_BL, batch.importance_BL]
    rows += [batch.advantage_B[:, None].expand(B, L), weights(aggregation, batch.mask_BL)]
    target, old, ref, importance, advantage, weight = (x.reshape(-1).to(DEVICE) for x in rows)
    return policy_loss(
        logits_BLV.view(B * L, V),
        target,
        old_logprob_T=old,
        ref_logprob_T=ref,
        importance_T=importance,
        advantage_T=advantage,
        weight_T=weight,
        sequence_id_T=torch.arange(B * L, device=DEVICE) // L,
        objective=objective,
    )


def trl_loss(
    batch: PaddedBatch, aggregation: str, objective: Objective, logits_BLV: torch.Tensor
) -> torch.Tensor:
    """The documented formulae of TRL's GRPOTrainer (loss_type and importance_sampling_level), in fp64."""
    old, ref, importance, mask = (
        x.double() for x in (batch.old_BL, batch.ref_BL, batch.importance_BL, batch.mask_BL)
    )
    A = batch.advantage_B.double()[:, None]
    logp = (logits_BLV / TEMPERATURE).log_softmax(-1).gather(2, batch.target_BL[..., None])[..., 0]
    log_ratio = logp - old
    if objective.kind == "gspo":
        log_ratio = (log_ratio * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
    ratio = torch.exp(log_ratio)
    if aggregation == "cispo":
        per_token = -ratio.clamp(max=1 + objective.clip_high).detach() * A * logp
    else:
        clipped = ratio.clamp(objective.lowest_ratio, 1 + objective.clip_high)
        per_token = -torch.min(ratio * A, clipped * A)
    per_token = per_token * importance
    per_token = per_token + objective.kl_coef * (torch.exp(ref - logp) - (ref - logp) - 1)
    if aggregation == "grpo":
        return ((per_token * mask).sum(1) / mask.sum(1)).mean()
    if aggregation == "dr_grpo":
        return (per_token * mask).sum() / (B * L)
    return (per_token * mask).sum() / mask.sum()


# aggregation, kind, clip_low: TRL and Liger clip CISPO's ratio above only
PUBLISHED = [
    ("grpo", "clip", 0.2),
    ("dapo", "clip", 0.2),
    ("dr_grpo", "clip", 0.2),
    ("grpo", "gspo", 0.2),
    ("cispo", "cispo", None),
]


@pytest.mark.parametrize(("aggregation", "kind", "clip_low"), PUBLISHED)
def test_equals_the_formulae_of_trl(
    batch: PaddedBatch, aggregation: str, kind: str, clip_low: float | None
) -> None:
    objective = Objective(kind, clip_low, 0.28, kl_coef=0.04, temperature=TEMPERATURE)
    exact = batch.logits_BLV.double().requires_grad_()
    wanted = trl_loss(batch, aggregation, objective, exact)
    wanted.backward()
    leaf = batch.logits_BLV.to(DEVICE, copy=True).requires_grad_()
    result = ours(batch, aggregation, objective, leaf)
    result.loss.backward()
    assert relative(result.loss.detach().cpu(), wanted.detach()) < 1e-5
    assert relative(leaf.grad.cpu(), exact.grad) < 1e-5


@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1" and DEVICE == "cpu",
    reason="Liger's kernel needs a GPU or Triton's interpreter (test_interpreter.py runs it there)",
)
@pytest.mark.parametrize(("aggregation", "kind", "clip_low"), PUBLISHED)
def test_equals_ligers_triton_kernel(
    batch: PaddedBatch, aggregation: str, kind: str, clip_low: float | None
) -> None:
    from liger_kernel.transformers.grpo_loss import triton_grpo_loss

    objective = Objective(kind, clip_low, 0.28, kl_coef=0.04, temperature=TEMPERATURE)
    # theirs takes one more row a sequence, that of the token after the last
    theirs = torch.cat([batch.logits_BLV, torch.zeros(B, 1, V)], 1).to(DEVICE).requires_grad_()
    loss, (kl, clip_fraction) = triton_grpo_loss(
        theirs,
        batch.old_BL.to(DEVICE),
        batch.ref_BL.to(DEVICE),
        batch.target_BL.to(DEVICE),
        batch.advantage_B.to(DEVICE),
        batch.mask_BL.to(DEVICE),
        temperature=TEMPERATURE,
        beta=0.04,
        eps_low=1.0 if clip_low is None else clip_low,
        eps_high=1.28 if kind == "cispo" else 0.28,
        inplace=False,
        loss_type=aggregation,
        importance_sampling_level="sequence" if kind == "gspo" else "token",
        vllm_is_ratio=batch.importance_BL.to(DEVICE),
        reduce=True,
    )
    loss.backward()
    leaf = batch.logits_BLV.to(DEVICE, copy=True).requires_grad_()
    result = ours(batch, aggregation, objective, leaf)
    result.loss.backward()
    assert relative(result.loss.detach(), loss.detach()) < 1e-5
    assert relative(leaf.grad, theirs.grad[:, :L]) < 1e-5
    assert relative(result.metrics["kl"], kl) < 1e-5
    if kind != "cispo":  # theirs counts clipped ratios of positive advantages only
        clipped = result.metrics["clip_fraction_low"] + result.metrics["clip_fraction_high"]
        assert abs(clipped - clip_fraction) < 1e-6
