"""Evaluation on a schedule while training: the loop's own sampler on the held-out problems."""

import time

from igrpo_mcore.collective import gather_objects
from igrpo_mcore.config.schema import Config
from igrpo_mcore.data.problems import held_out_problems
from igrpo_mcore.evaluation.answered import Answered
from igrpo_mcore.evaluation.figures import Evaluation
from igrpo_mcore.evaluation.sampling import KEY, batches, problems_a_batch, sampling_of
from igrpo_mcore.rollout.sampler import Sampler
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder


class HeldOut:
    """Evaluates every ``eval.every`` steps and after the last one, and remembers the best accuracy.

    Its seeds are its own and the engine's prefix cache is emptied afterwards, so a run's training is the same
    with and without it. Collective, and the same on every rank.
    """

    def __init__(self, config: Config, sampler: Sampler, checkpoints: CheckpointFolder) -> None:
        """Raises ``UserError`` where there are no held-out problems to evaluate on."""
        self._config, self._sampler, self._checkpoints = config, sampler, checkpoints
        self.improved = False
        """Whether the last step's accuracy is the best so far and its checkpoint is to be kept for that."""
        if config.eval.every:
            self._problems = held_out_problems(config)
            best = checkpoints.best()  # as rank 0 sees the folder: a network disk may lag elsewhere
            self._best = gather_objects(checkpoints.accuracy(best) if best else None)[0]

    def due(self, step: int) -> bool:
        every = self._config.eval.every
        return every > 0 and (step % every == 0 or step == self._config.train.steps)

    def evaluate(self, step: int) -> dict[str, float | None]:
        """``eval/…`` of docs/metrics.md with the weights that the engines hold; empty where none is due."""
        self.improved = False
        if not self.due(step):
            return {}
        start = time.perf_counter()
        samples = 1 if self._config.eval.temperature == 0 else self._config.eval.samples
        sampling, batch = sampling_of(self._config, samples), problems_a_batch(self._config, samples)
        groups = batches(self._sampler, self._problems, sampling, KEY, batch)
        found = Evaluation.of(step, [Answered.of(group) for part in groups for group in part])
        self._sampler.engine.reset_prefix_cache()
        self._checkpoints.evaluated(step, found.accuracy)
        if self._config.checkpoint.keep_best:
            self.improved = self._best is None or found.accuracy > self._best
            self._best = found.accuracy if self.improved else self._best
        return {
            "eval/accuracy": found.accuracy,
            "eval/accuracy_low": found.low,
            "eval/accuracy_high": found.high,
            "eval/any_right": found.any_right,
            "eval/reward_mean": found.reward,
            "eval/truncated_share": found.truncated,
            "eval/length_mean": found.length,
            "time/eval_s": time.perf_counter() - start,
        }
