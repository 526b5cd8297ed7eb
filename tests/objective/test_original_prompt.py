"""The transfer to the original prompt: RLTF-SD's gradient by autograd in fp64, with and without weights."""

import pytest
import torch

from igrpo_mcore.config.schema import Advantage, Correction, ObjectiveConfig, RolloutConfig
from igrpo_mcore.objective.batch import training_sequences
from igrpo_mcore.objective.correction import ImportanceWeights
from igrpo_mcore.policy.parity import compare
from igrpo_mcore.types import TrainingSequence
from tests.objective.formulae import Model, random_step, trained_gradients

STEP = random_step(seed=3)
WEIGHT, CAP = 0.7, 2.0


def transferred(config: ObjectiveConfig) -> list[TrainingSequence]:
    return [s for s in training_sequences(STEP, config, RolloutConfig()) if not s.sampled_here]


def expected_loss(model: Model, advantage: Advantage, weigh=None) -> torch.Tensor:
    """-(1/B) Σ (1/G) Σ (1/|o|) Σ_t w_t (R(o) - mean R(drafts)) log π(o_t|q), from the paper's equation."""
    losses = []
    for rollout in STEP:
        drafts, refinements = (stage.group for stage in rollout.stages)
        baseline = sum(score.total for score in drafts.scores) / len(drafts.scores)
        for completion, score in zip(refinements.completions, refinements.scores, strict=True):
            gain = score.total - baseline
            if advantage == Advantage.positive:
                gain = max(gain, 0.0)
            logp_T = model.logp_T(drafts.prompt, completion)
            weight_T = (
                1.0 if weigh is None else weigh(logp_T.detach(), torch.tensor(completion.logprobs).double())
            )
            losses.append(-(weight_T * gain * logp_T).mean() / len(refinements.completions))
    return WEIGHT * torch.stack(losses).sum() / len(STEP)


@pytest.mark.parametrize("kind", ["clip", "reinforce", "cispo"])
@pytest.mark.parametrize("advantage", [Advantage.group, Advantage.positive])
def test_gradient_without_importance(advantage: Advantage, kind: str) -> None:
    config = ObjectiveConfig(kind=kind, advantage=advantage, original_prompt_weight=WEIGHT)
    model = Model()
    found = trained_gradients(model, transferred(config), config)
    assert set(found) == {(0,), (1,), (2,)}  # under q, not q'
    expected = model.gradients(expected_loss(model, advantage))
    assert max(float(grad.abs().max()) for grad in expected.values()) > 1e-2
    for prompt, grad in expected.items():
        torch.testing.assert_close(found[prompt], grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("correction", [Correction.token, Correction.sequence])
def test_correction_is_the_truncated_ratio_of_the_two_prompts(correction: Correction) -> None:
    config = ObjectiveConfig(
        correction=correction, correction_cap=CAP, original_prompt_weight=WEIGHT, kind="reinforce"
    )
    model = Model()

    def ratio(sequence: TrainingSequence, old_T: torch.Tensor) -> torch.Tensor:
        return ImportanceWeights.of([[sequence]], [{0: old_T}], config).weights[0][0].double()

    def formula(under_q_T: torch.Tensor, under_draft_T: torch.Tensor) -> torch.Tensor:
        log_ratio = under_q_T - under_draft_T
        if correction == Correction.sequence:
            log_ratio = log_ratio.sum()
        return log_ratio.exp().clamp(max=CAP)

    found = trained_gradients(model, transferred(config), config, ratio)
    expected = model.gradients(expected_loss(model, Advantage.group, formula))
    for prompt, grad in expected.items():
        torch.testing.assert_close(found[prompt], grad, rtol=1e-6, atol=1e-9)  # weights are in fp32


def test_a_signal_is_left_where_every_refinement_is_right() -> None:
    """Which is what the drafts' mean is the baseline for."""
    config = ObjectiveConfig(original_prompt_weight=1.0)
    (rollout,) = random_step(prompts=1)
    right = tuple(type(score)(2.0) for score in rollout.trained.scores)
    drafts, refined = rollout.stages
    group = type(refined.group)(refined.group.prompt, refined.group.completions, right)
    step = [type(rollout)((drafts, type(refined)(refined.name, group)))]
    sequences = training_sequences(step, config, RolloutConfig())
    assert {s.advantage for s in sequences if s.sampled_here} == {0.0}
    (gain,) = {s.advantage for s in sequences if not s.sampled_here}
    assert gain == pytest.approx(2.0 - sum(drafts.group.rewards) / 3)
    assert gain > 0


def test_it_adds_to_what_is_there() -> None:
    plain = training_sequences(STEP, ObjectiveConfig(draft_weight=0.5), RolloutConfig())
    more = training_sequences(
        STEP, ObjectiveConfig(draft_weight=0.5, original_prompt_weight=1.0), RolloutConfig()
    )
    assert more[: len(plain)] == plain
    assert {s.sampled_here for s in plain} == {True}
    assert sum(s.weight * len(s.completion_ids) for s in more[len(plain) :]) == pytest.approx(1.0)


def test_the_gate_leaves_them_out() -> None:
    here = TrainingSequence((1,), (2, 3), (-1.0, -2.0))
    elsewhere = TrainingSequence((1,), (2, 3), (-9.0, -9.0), sampled_here=False)
    ours = torch.tensor([-1.0, -2.5])
    found = compare([[here, elsewhere]], [{0: ours, 1: ours}])
    assert (found.max_abs_diff, found.mean_abs_diff) == (0.5, 0.25)
