"""The same batch through transformers: log-probs, the paper's loss and autograd's gradients."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from tests.policy.sequences import shift, training_batch

TEMPERATURE, CLIP, KL_COEF = 0.8, 0.2, 0.05


def logprobs_of(model, sequence, temperature: float) -> torch.Tensor:
    """log π(completion token | what is before it), one unpadded sequence at a time."""
    ids = torch.tensor([sequence.prompt_ids + sequence.completion_ids])
    logits = model(ids).logits[0, len(sequence.prompt_ids) - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(-1, torch.tensor(sequence.completion_ids)[:, None])[:, 0]


def oracle(checkpoint: Path) -> dict:
    """What ``tests.policy.layouts_worker`` computes, from iGRPO's equations in plain autograd."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    batch = training_batch()
    logprobs, loss = [], torch.zeros(())
    for index, sequence in enumerate(batch):
        logprob = logprobs_of(model, sequence, TEMPERATURE)
        frozen = logprob.detach()
        logprobs.append(frozen)
        ratio = (logprob - (frozen - shift(index))).exp()
        clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
        surrogate = torch.min(ratio * sequence.advantage, clipped * sequence.advantage)
        rho = (frozen + 0.1 - logprob).exp()
        kl = rho - rho.log() - 1
        loss = loss - sequence.weight * (surrogate - KL_COEF * kl).sum()
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    # gradients under the checkpoint's own names, which transformers 5 renames on load for some families
    from transformers.core_model_loading import revert_weight_conversion

    gradients = revert_weight_conversion(model, gradients)
    return {"logprobs": logprobs, "loss": float(loss), "gradients": gradients}
