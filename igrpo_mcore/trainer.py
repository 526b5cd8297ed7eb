"""The iGRPO loop: sample drafts, choose, sample refinements, update on them, push the weights.

One program in every rank. Each arrow of docs/architecture.md's picture is one call here.
"""

from collections.abc import Sequence

from igrpo_mcore.config.schema import Config, Resume
from igrpo_mcore.data.tokenizer import load_tokenizer
from igrpo_mcore.device_memory import DeviceMemory
from igrpo_mcore.evaluation.held_out import HeldOut
from igrpo_mcore.families import architecture_of, table_for
from igrpo_mcore.gate import Gate
from igrpo_mcore.objective.batch import mini_batches
from igrpo_mcore.objective.comparison import same_gradient_note
from igrpo_mcore.planning.run import plan_of_run
from igrpo_mcore.policy.architecture import check_layout, load_hf_config
from igrpo_mcore.policy.checkpoint import load_latest
from igrpo_mcore.policy.checkpoint_writer import CheckpointWriter, Published
from igrpo_mcore.policy.layer_spec import layer_paths
from igrpo_mcore.policy.learner import Batches, Learner
from igrpo_mcore.policy.parallel import is_main_rank, start_process_groups, world_size
from igrpo_mcore.policy.policy import Policy
from igrpo_mcore.report.run import RunReport
from igrpo_mcore.report.step_metrics import step_metrics
from igrpo_mcore.rollout.sampler import Sampler
from igrpo_mcore.rollout.vllm_engine import VLLMEngine
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder, Position
from igrpo_mcore.run.folder import checkpoints_dir, run_dir
from igrpo_mcore.run.phases import Phases
from igrpo_mcore.run.profiler import profiled
from igrpo_mcore.run.progress import beat
from igrpo_mcore.run.rank_spread import rank_spread
from igrpo_mcore.run.stop_signal import Stopped, StopSignal
from igrpo_mcore.types import PromptRollout
from igrpo_mcore.weights.checkpoint import resolve_checkpoint
from igrpo_mcore.weights.hf_import import load_hf_weights
from igrpo_mcore.weights.push import Pusher, PushStats


class Trainer:
    """One rank of a run: a sampler, a learner, the push between them, and who holds the GPU."""

    def __init__(self, config: Config) -> None:
        """Build everything: process groups, policy, reference, engine, data, rewards.

        Raises:
            UserError: what preflight checks, and a checkpoint that does not fit or is damaged.
        """
        self.config = config
        self.phases = Phases()
        self.report: RunReport | None = None
        hf_config = load_hf_config(config.model.path)
        architecture = architecture_of(hf_config, config.model.dtype)
        check_layout(architecture, config.parallel, config.rollout.tp, world_size())
        self.tokenizer = load_tokenizer(config.model.path)

        start_process_groups(config.parallel, config.train.seed, config.run.hang_minutes)
        updates = config.train.steps * config.train.updates_per_step
        policy = Policy(config, architecture, updates, table_for(hf_config))
        load_hf_weights(policy.chunks, resolve_checkpoint(config.model.path), hf_config)
        policy.weights_loaded()
        self.learner = Learner(config, policy, self.phases)
        self.position = Position(step=0, problems=0, updates=0)
        keep = config.checkpoint
        self.checkpoints = CheckpointFolder(checkpoints_dir(config.run), keep.keep, keep.keep_best)
        self.writer = CheckpointWriter(self.checkpoints, asynchronous=config.checkpoint.asynchronous)
        if config.checkpoint.resume == Resume.auto:
            self.position = load_latest(self.checkpoints, policy) or self.position

        def start_engine() -> VLLMEngine:
            path, dtype, seed = config.model.path, config.model.dtype, config.train.seed
            return VLLMEngine(path, config.rollout, dtype, self.tokenizer, seed=seed)

        self.gpu = DeviceMemory(policy, start_engine, self.phases)
        self.sampler = Sampler(config, self.gpu.engine, self.tokenizer, self.phases)
        self.held_out = HeldOut(config, self.sampler, self.checkpoints)
        self.pusher = Pusher(
            policy.chunks,
            hf_config,
            rollout_tp=config.rollout.tp,
            bucket_bytes=config.rollout.push_bucket_bytes,
            dtype=policy.dtype,
        )
        self.gate = Gate(config, self.learner, self.gpu, self.pusher)

    def run(self) -> None:
        """Train up to ``train.steps`` steps and leave the run's folder (rank 0); then ``close``.

        Raises:
            Stopped: the job was asked to stop; the checkpoint of the last step is written.
        """
        first, last, options = self.position.step + 1, self.config.train.steps, self.config.run
        self.sampler.open_journal(first)
        if is_main_rank():
            self.report = RunReport(self.config, self.tokenizer.decode, first)
            self.report.plan(lambda: plan_of_run(self.config, world_size()))
            note = same_gradient_note(self.config)
            paths = layer_paths(mamba=self.learner.policy.architecture.mamba is not None)
            layers = "layers: " + ", ".join(f"{kind} by {path}" for kind, path in paths.items())
            notes = filter(None, (note, self.checkpoints.note, self.sampler.journal.note))
            self.report.start(layers, self.pusher.describe(), *notes)
        signals = StopSignal()
        try:
            self.push()
            for step in range(first, last + 1):
                with profiled(step, options.profile_steps, run_dir(options), self.pusher.rank):
                    self.step(step)
                self.published(self.writer.poll())
                stop = signals.on_any_rank()
                if stop or step == last or self.checkpoint_due(step) or self.held_out.improved:
                    self.save(waits=stop or step == last)
                if stop and step < last:
                    raise Stopped(step)
        except BaseException:
            if self.report:
                self.report.finish(completed=False)
            raise
        if self.report:
            self.report.finish()
        self.sampler.close()

    def step(self, step: int) -> None:
        """One iteration of the paper's algorithm."""
        config = self.config
        self.phases.clear()
        beat(step=step)
        with self.phases("step"):
            with self.phases("rollout"), self.gpu.sampling():
                samples = self.sampler.sample(step, self.position.problems)
            batches = self.batches(samples.rollouts)
            fresh = batches if samples.fresh is samples.rollouts else self.batches(samples.fresh)
            due = self.gate.due(step) and any(fresh)
            with self.gpu.training(keep_engine_weights=due):
                old = self.learner.logprobs(batches) if self.learner.needs_old_logprobs else None
                measured = self.gate.check(fresh, old if fresh is batches else None, step) if due else None
                importance = self.learner.importance(batches, old)
                ref = self.learner.reference_logprobs(batches)
                with self.phases("update"), self.gpu.updating():
                    updates = self.learner.update(batches, old, ref, importance)
            pushed = self.push()
            self.sampler.journal.sync()
        evaluated = self.held_out.evaluate(step)
        ranks = rank_spread(self.phases)
        drawn = self.position.problems + samples.drawn
        self.position = Position(step, drawn, self.learner.policy.updates)
        if self.report:
            options = self.sampler.reward_options
            metrics = step_metrics(
                samples, measured, importance, updates, pushed, self.phases, config, options
            )
            self.report.step(step, samples.rollouts, metrics | ranks | evaluated)

    def batches(self, rollouts: Sequence[PromptRollout]) -> Batches:
        """The mini-batches of a step."""
        config = self.config
        return mini_batches(rollouts, config.train.mini_batches, config.objective, config.rollout)

    def push(self) -> PushStats:
        """The policy's weights into the engines."""
        with self.phases("push"), self.gpu.pushing():
            return self.pusher.push(self.gpu.engine)

    def checkpoint_due(self, step: int) -> bool:
        every = self.config.checkpoint.every
        return every > 0 and step % every == 0

    def save(self, *, waits: bool = False) -> None:
        """Begin the checkpoint of a finished step; where it ``waits``, or without
        ``checkpoint.asynchronous``, also publish it."""
        if waits:
            self.published(self.writer.finish())
        with self.phases("checkpoint"), self.gpu.saving():
            published = self.writer.begin(self.learner.policy, self.position, waits=waits)
        if not self.gpu.engine_ready:
            self.push()
        self.published(published)

    def published(self, checkpoint: Published | None) -> None:
        """A checkpoint is whole: the journal forgets what no checkpoint leads to any more."""
        if checkpoint is None:
            return
        self.sampler.journal.prune(self.checkpoints.oldest_step() + 1)
        if self.report:
            self.report.say(f"checkpoint: {checkpoint.path} ({checkpoint.seconds:.1f} s)")
