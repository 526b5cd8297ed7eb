"""No update on samples that the trainer does not agree with: the gate, and who is to blame."""

from typing import NoReturn

from igrpo_mcore import device
from igrpo_mcore.config.parity_limits import limits_of
from igrpo_mcore.config.schema import Config
from igrpo_mcore.device_memory import DeviceMemory
from igrpo_mcore.policy import parity
from igrpo_mcore.policy.learner import Batches, Learner, LogProbs
from igrpo_mcore.policy.parity import Parity
from igrpo_mcore.rollout.vllm_engine import VLLMEngine
from igrpo_mcore.weights.push import Pusher
from igrpo_mcore.weights.verify import verify_weights


class Gate:
    """Compares the trainer's log-probs of what was sampled with the sampler's own."""

    def __init__(
        self, config: Config, learner: Learner, gpu: DeviceMemory[VLLMEngine], pusher: Pusher
    ) -> None:
        self._learner, self._gpu, self._pusher = learner, gpu, pusher
        self._every, self._sequences, self._seed = (
            config.parity.every,
            config.parity.sequences,
            config.train.seed,
        )
        self._limits = limits_of(config.parity, config.model.dtype, device.has_cuda())

    def due(self, step: int) -> bool:
        """Whether ``step`` is compared: step 1, and every ``parity.every``."""
        return step == 1 or step % self._every == 0

    def check(self, batches: Batches, old: LogProbs | None, step: int) -> Parity:
        """Compare ``batches``, sampled by the policy as it is; ``old`` are its log-probs where known, else
        those of ``parity.sequences`` of each batch are computed.

        Inside ``gpu.training(keep_engine_weights=True)``, and a collective.

        Raises:
            UserError: above the limits of mean or quantile; names the tensors that differ.
        """
        if old is None:
            batches = parity.sample(batches, self._sequences, self._seed, step)
            old = self._learner.logprobs(batches)
        measured = parity.compare(batches, old)
        if not measured.within(self._limits):
            self._refuse(measured)
        return measured

    def _refuse(self, measured: Parity) -> NoReturn:
        # the engine kept the very weights that it sampled with
        with self._gpu.pushing():
            found = verify_weights(self._pusher, engine_model=self._gpu.engine.model).mismatches
        parity.refuse(measured, self._limits, sorted({mismatch.tensor for mismatch in found}))
