"""With one update the objectives are one; with two they are not."""

import pytest
import torch
from igrpo_kernels import Objective, policy_loss

from igrpo_mcore.config.schema import Config, Correction, DataConfig, ModelConfig
from igrpo_mcore.objective.comparison import same_gradient_note

KINDS = ("clip", "reinforce", "cispo", "gspo")


def gradient(kind: str, old_T: torch.Tensor | None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    logits_TV = torch.randn(12, 17, generator=generator).requires_grad_()
    advantage_T = torch.randn(12, generator=generator)
    result = policy_loss(
        logits_TV,
        torch.randint(17, (12,), generator=generator),
        old_logprob_T=old_T,
        advantage_T=advantage_T,
        weight_T=torch.full((12,), 1 / 12),
        objective=Objective(kind=kind),
        sequence_id_T=torch.arange(12) // 4,
    )
    result.loss.backward()
    return logits_TV.grad


def test_one_update_is_the_same_gradient_for_every_kind_in_the_same_sequence_advantage():
    gradients = {kind: gradient(kind, None) for kind in KINDS}
    torch.testing.assert_close(gradients["reinforce"], gradients["clip"])
    torch.testing.assert_close(gradients["cispo"], gradients["clip"])


def test_gspo_too_where_a_sequence_has_one_advantage():
    generator = torch.Generator().manual_seed(1)
    logits_TV, target_T = (
        torch.randn(12, 17, generator=generator),
        torch.randint(17, (12,), generator=generator),
    )
    advantage_T = torch.tensor([1.0, -0.5, 2.0]).repeat_interleave(4)
    found = []
    for kind in ("clip", "gspo"):
        leaf = logits_TV.clone().requires_grad_()
        policy_loss(
            leaf,
            target_T,
            old_logprob_T=None,
            advantage_T=advantage_T,
            weight_T=torch.full((12,), 1 / 12),
            objective=Objective(kind=kind),
            sequence_id_T=torch.arange(12) // 4,
        ).loss.backward()
        found.append(leaf.grad)
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize(("by_token", "same"), [(False, True), (True, False)])
def test_gspo_averages_importance_weights_over_a_sequence(by_token, same):
    """Which is why the note is not given for gspo with weights by token."""
    generator = torch.Generator().manual_seed(2)
    logits_TV, target_T = (
        torch.randn(12, 17, generator=generator),
        torch.randint(17, (12,), generator=generator),
    )
    importance_T = torch.rand(12, generator=generator) + 0.5
    if not by_token:
        importance_T = importance_T[::4].repeat_interleave(4)
    found = []
    for kind in ("clip", "gspo"):
        leaf = logits_TV.clone().requires_grad_()
        policy_loss(
            leaf,
            target_T,
            old_logprob_T=None,
            advantage_T=torch.tensor([1.0, -0.5, 2.0]).repeat_interleave(4),
            weight_T=torch.full((12,), 1 / 12),
            objective=Objective(kind=kind),
            importance_T=importance_T,
            sequence_id_T=torch.arange(12) // 4,
        ).loss.backward()
        found.append(leaf.grad)
    assert torch.allclose(found[0], found[1], atol=1e-6) is same


def test_a_second_update_tells_them_apart():
    old_T = torch.linspace(-6, -1, 12)
    gradients = [gradient(kind, old_T) for kind in KINDS]
    for i, one in enumerate(gradients):
        for other in gradients[i + 1 :]:
            assert float((one - other).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("changes", "noted"),
    [
        ({}, False),
        ({"objective.kind": "cispo"}, True),
        ({"objective.clip_high": 0.28}, True),
        ({"objective.kind": "gspo", "objective.correction": Correction.sequence}, True),
        ({"objective.kind": "gspo", "objective.correction": Correction.token}, False),
        ({"objective.kind": "gspo", "train.passes": 2}, False),
        ({"objective.kind": "gspo", "train.mini_batches": 2}, False),
    ],
)
def test_a_choice_without_effect_is_noted(changes, noted):
    config = Config(model=ModelConfig(path="m"), data=DataConfig(path="d"))
    for name, value in changes.items():
        section, option = name.split(".")
        setattr(getattr(config, section), option, value)
    assert (same_gradient_note(config) is not None) is noted
