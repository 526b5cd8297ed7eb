"""The refinements trained under the prompt that counts in the end: q, without a draft.

A transfer to single-shot, after RLTF-SD (arXiv 2602.02482, self distillation with the first turn's baseline),
which trains a second answer, written with feedback, under the prompt without it:

    ∇ = E_{o ~ π_old(·|q')} [ (R(o) - b) ∇ log π_θ(o|q) ],   b = mean of R over the first stage's drafts.

The gradient of single-shot reward would weigh each o by π_θ(o|q) / π_old(o|q'), whose variance explodes with
the length; as in the paper that ratio is left out, which is a biased, reward-weighted log-likelihood (AWR).
``objective.correction`` puts it back truncated: ``TrainingSequence.logprobs`` stay those under q', so its
weights are min(π_old(o|q) / π_sampler(o|q'), C), by token or by sequence. The ratio of clip, cispo and gspo
is π_θ(o|q) / π_old(o|q): 1 at a step's first update. b and not the refinements' own mean, so that a signal
is left where every refinement is right and single shots are not; nothing is divided by a std, which is 0 in
just that case.
"""

import math
from collections.abc import Sequence

from igrpo_mcore.config.schema import Advantage, ObjectiveConfig
from igrpo_mcore.objective.advantages import advantages_of
from igrpo_mcore.types import PromptRollout


def transfer_advantages(rollout: PromptRollout, config: ObjectiveConfig) -> list[float]:
    """A of each refinement under q: R_j - b by ``objective.advantage=group``, max(R_j - b, 0) by positive;
    raw and raft have no baseline and are what they are elsewhere."""
    rewards: Sequence[float] = rollout.trained.rewards
    if config.advantage in (Advantage.raw, Advantage.raft):
        return advantages_of(rewards, config)
    drafts = rollout.single_shot.rewards
    baseline = math.fsum(drafts) / len(drafts)
    gains = [reward - baseline for reward in rewards]
    return [max(gain, 0.0) for gain in gains] if config.advantage == Advantage.positive else gains
