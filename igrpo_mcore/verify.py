"""``igrpo verify``: load, push, and prove that the sampler holds the trainer's weights."""

from igrpo_mcore import device
from igrpo_mcore.config.parity_limits import QUANTILE, limits_of
from igrpo_mcore.config.schema import Config, Resume
from igrpo_mcore.errors import UserError
from igrpo_mcore.objective.batch import mini_batches
from igrpo_mcore.policy import parity
from igrpo_mcore.policy.parallel import is_main_rank
from igrpo_mcore.trainer import Trainer
from igrpo_mcore.weights.checkpoint import resolve_checkpoint
from igrpo_mcore.weights.verify import verify_weights


def verify(config: Config, *, of_run: bool) -> None:
    """Print a table by tensor family and the log-prob difference on one step's samples; takes no update.

    Of a run the weights are those of its newest checkpoint, of a recipe those that it starts from,
    which are also compared with the Hugging Face files.

    Raises:
        UserError: a tensor differs anywhere on its way, the log-probs differ above the limits, or
            the run has no checkpoint.
    """
    config.checkpoint.resume = Resume.auto if of_run else Resume.never
    trainer = Trainer(config)
    if of_run and not trainer.position.step:
        raise UserError(f"run {config.run.name} has no checkpoint yet: verify its recipe instead")
    trainer.push()
    source = None if of_run else resolve_checkpoint(config.model.path)
    checked = verify_weights(trainer.pusher, checkpoint=source, engine_model=trainer.gpu.engine.model)
    with trainer.gpu.sampling():
        samples = trainer.sampler.sample(trainer.position.step + 1, trainer.position.problems)
    batches = mini_batches(samples.rollouts, 1, config.objective, config.rollout)
    with trainer.gpu.training():
        measured = parity.compare(batches, trainer.learner.logprobs(batches))
    limits = limits_of(config.parity, config.model.dtype, device.has_cuda())
    if is_main_rank():
        print(f"weights of {trainer.checkpoints.latest() if of_run else source}")
        print(checked.table())
        print(
            f"log-probs   largest difference {measured.max_abs_diff:.2e}, {100 * QUANTILE:g} % quantile "
            f"{measured.quantile_abs_diff:.2e} (limit {limits.quantile:g}), mean "
            f"{measured.mean_abs_diff:.2e} (limit {limits.mean:g})",
            flush=True,
        )
    names = sorted({mismatch.tensor for mismatch in checked.mismatches})
    if not measured.within(limits):
        parity.refuse(measured, limits, names)
    if names:
        raise UserError(f"these tensors differ on their way to the sampler: {', '.join(names)}")
    trainer.sampler.close()
