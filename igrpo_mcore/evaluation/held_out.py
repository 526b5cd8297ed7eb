"""Evaluation on a schedule while training: the loop's own sampler on the held-out problems."""

import time

from igrpo_mcore.collective import gather_objects
from igrpo_mcore.config.schema import Config
from igrpo_mcore.data.problems import held_out_problems
from igrpo_mcore.evaluation.answered import Answered
from igrpo_mcore.evaluation.figures import HELD_OUT, Evaluation
from igrpo_mcore.evaluation.files import figures_path, write
from igrpo_mcore.evaluation.journal import Journal
from igrpo_mcore.evaluation.sampling import KEY, batches, problems_a_batch, sampling_of
from igrpo_mcore.policy.parallel import is_main_rank
from igrpo_mcore.rollout.sampler import Sampler
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder
from igrpo_mcore.run.folder import run_dir

WHILE_TRAINING = "training"
"""In the place of a fingerprint: whose completions these are while no checkpoint holds their weights."""


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
        """``eval/…`` of docs/metrics.md with the weights that the engines hold; empty where none is due.

        Leaves ``eval/step_N.json`` and the completions beside it, as ``igrpo eval`` does.

        Raises:
            UserError: a file cannot be written.
        """
        self.improved = False
        if not self.due(step):
            return {}
        start = time.perf_counter()
        samples = 1 if self._config.eval.temperature == 0 else self._config.eval.samples
        sampling, batch = sampling_of(self._config, samples), problems_a_batch(self._config, samples)
        groups = batches(self._sampler, self._problems, sampling, KEY, batch)
        answered = [Answered.of(group) for part in groups for group in part]
        found = Evaluation.of(step, answered)
        if is_main_rank():
            self._keep(step, answered, found)
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

    def _keep(self, step: int, answered: list[Answered], found: Evaluation) -> None:
        """Completions first: figures without them would pass for a whole evaluation."""
        path = figures_path(run_dir(self._config.run), HELD_OUT, step)
        journal = Journal(path.with_suffix(".jsonl"), WHILE_TRAINING)
        journal.forget()  # what the same step had before a resume
        journal.append(answered)
        write(path, found)
