"""From a step's mini-batches to updates of the policy: the log-probs that they need, then the steps."""

from collections.abc import Sequence

from torch import Tensor

from igrpo_mcore.config.schema import Config, Correction
from igrpo_mcore.objective.correction import ImportanceInUpdate, ImportanceWeights
from igrpo_mcore.policy.policy import Policy
from igrpo_mcore.policy.reference import ReferenceWeights
from igrpo_mcore.policy.update_stats import UpdateStats
from igrpo_mcore.run.phases import Phases
from igrpo_mcore.types import TrainingSequence

Batches = Sequence[list[TrainingSequence]]
LogProbs = list[dict[int, Tensor]]
"""By mini-batch and index in it, fp32 [tokens of the completion]; this rank's share."""


class Learner:
    """The policy with its frozen reference (kept only where ``objective.kl_coef`` > 0)."""

    def __init__(self, config: Config, policy: Policy, phases: Phases) -> None:
        """The reference is the policy as it is now: make it before a checkpoint is loaded."""
        self.policy = policy
        self.objective = config.objective.at(config.rollout.temperature)
        self._options, self._passes, self._phases = config.objective, config.train.passes, phases
        self._reference = ReferenceWeights(policy.chunks) if config.objective.kl_coef else None
        self._off_policy = config.train.updates_per_step > 1

    @property
    def needs_old_logprobs(self) -> bool:
        """Whether an update asks for log π_old: where there is more than one a step. One alone has the policy
        that it starts from in its own forward pass."""
        return self._off_policy

    def logprobs(self, batches: Batches) -> LogProbs:
        """log π_old of every mini-batch."""
        with self._phases("logprobs"):
            return [self.policy.logprobs(batch) for batch in batches]

    def importance(self, batches: Batches, old: LogProbs | None) -> ImportanceWeights | None:
        """The weights of ``objective.correction``; none without one, and where the update makes them."""
        if self._options.correction == Correction.none or not self._off_policy:
            return None
        assert old is not None
        return ImportanceWeights.of(batches, old, self._options)

    def reference_logprobs(self, batches: Batches) -> LogProbs | None:
        """log π_ref of every mini-batch; nothing is computed where β = 0."""
        if self._reference is None:
            return None
        with self._phases("ref_logprobs"), self._reference.active():
            return [self.policy.logprobs(batch) for batch in batches]

    def update(
        self,
        batches: Batches,
        old: LogProbs | None,
        ref: LogProbs | None,
        importance: ImportanceWeights | None,
    ) -> list[UpdateStats]:
        """One optimizer step a mini-batch, ``train.passes`` times over all of them."""
        before = old if self._off_policy else None  # on-policy the ratio is 1
        # without a reference the KL that is logged is to the policy of the step's start
        kl_to = ref or before
        corrects = self._options.correction != Correction.none and not self._off_policy
        return [
            self.policy.update(
                batch,
                self.objective,
                before[i] if before else None,
                kl_to[i] if kl_to else None,
                ImportanceInUpdate(self._options)
                if corrects
                else (importance.weights[i] if importance else None),
            )
            for _ in range(self._passes)
            for i, batch in enumerate(batches)
        ]
