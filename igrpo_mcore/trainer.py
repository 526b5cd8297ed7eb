"""The iGRPO loop: sample drafts, choose, sample refinements, update on them, push the weights.

One program in every rank. Each arrow of docs/architecture.md's picture is one call here.
"""

from igrpo_kernels import Objective
from torch import Tensor

from igrpo_mcore import device, parity
from igrpo_mcore.collective import gather_objects
from igrpo_mcore.config.parity_limits import limits_of
from igrpo_mcore.config.schema import Config, Correction, Resume
from igrpo_mcore.data.order import ProblemOrder
from igrpo_mcore.data.problems import load_problems
from igrpo_mcore.data.templates import PromptRenderer
from igrpo_mcore.data.tokenizer import load_tokenizer
from igrpo_mcore.objective.batch import mini_batches
from igrpo_mcore.objective.comparison import same_gradient_note
from igrpo_mcore.objective.correction import ImportanceWeights
from igrpo_mcore.parity import Parity
from igrpo_mcore.phases import Phases
from igrpo_mcore.planning.run import plan_of_run
from igrpo_mcore.policy.architecture import architecture_of, check_layout, load_hf_config
from igrpo_mcore.policy.checkpoint import load_latest, save_checkpoint
from igrpo_mcore.policy.checkpoint_folder import CheckpointFolder, Position
from igrpo_mcore.policy.layer_spec import layer_paths
from igrpo_mcore.policy.parallel import is_main_rank, start_process_groups, world_size
from igrpo_mcore.policy.policy import Policy
from igrpo_mcore.policy.reference import ReferenceWeights
from igrpo_mcore.report.run import RunReport
from igrpo_mcore.report.run_folder import checkpoints_dir
from igrpo_mcore.rewards.options import options_of
from igrpo_mcore.rewards.pool import RewardPool
from igrpo_mcore.rollout.engine import EngineMemory
from igrpo_mcore.rollout.gather import merge_parts
from igrpo_mcore.rollout.shared_scorer import SharedScorer
from igrpo_mcore.rollout.stages import RolloutStats, sample
from igrpo_mcore.rollout.stop_tokens import stop_token_ids
from igrpo_mcore.rollout.vllm_engine import VLLMEngine
from igrpo_mcore.step_metrics import step_metrics
from igrpo_mcore.stop_signal import Stopped, StopSignal
from igrpo_mcore.types import PromptRollout, TrainingSequence
from igrpo_mcore.weights import PushStats, WeightSync, load_hf_weights
from igrpo_mcore.weights.checkpoint import resolve_checkpoint
from igrpo_mcore.weights.verify import verify_weights


class Trainer:
    """One rank of a run."""

    def __init__(self, config: Config) -> None:
        """Build everything: data, process groups, policy, reference, engine, rewards.

        Raises:
            UserError: what preflight checks, and a checkpoint that does not fit or is damaged.
        """
        self.config = config
        hf_config = load_hf_config(config.model.path)
        architecture = architecture_of(hf_config, config.model.dtype)
        check_layout(architecture, config.parallel, config.rollout.tp, world_size())
        tokenizer = load_tokenizer(config.model.path)
        self.problems = load_problems(config.data)
        self.order = ProblemOrder(len(self.problems), config.train.seed, config.data.shuffle)
        self.renderer = PromptRenderer(tokenizer, config.data, config.rollout)
        self.stop_token_ids = stop_token_ids(config.model.path, tokenizer)
        self.objective = Objective(
            kind=str(config.objective.kind),
            clip_low=config.objective.clip_low,
            clip_high=config.objective.clip_high,
            dual_clip=config.objective.dual_clip,
            kl_coef=config.objective.kl_coef,
            kl_kind=config.objective.kl_kind,
            entropy_coef=config.objective.entropy_coef,
            temperature=config.rollout.temperature,
        )
        self.decode = tokenizer.decode
        self.report: RunReport | None = None
        self.phases = Phases()

        start_process_groups(config.parallel, config.train.seed)
        self.policy = Policy(config, architecture, config.train.steps * config.train.updates_per_step)
        load_hf_weights(self.policy.chunks, resolve_checkpoint(config.model.path), hf_config)
        self.policy.weights_loaded()
        self.reference = ReferenceWeights(self.policy.chunks) if config.objective.kl_coef else None
        self.position = Position(step=0, problems=0, updates=0)
        self.checkpoints = CheckpointFolder(checkpoints_dir(config.run), config.checkpoint.keep)
        if config.checkpoint.resume == Resume.auto:
            self.position = load_latest(self.checkpoints, self.policy) or self.position
        self.policy.offload_optimizer()
        self.engine = VLLMEngine(
            config.model.path, config.rollout, config.model.dtype, tokenizer, seed=config.train.seed
        )
        self.sync = WeightSync(
            self.policy.chunks,
            hf_config,
            rollout_tp=config.rollout.tp,
            bucket_bytes=config.rollout.push_bucket_bytes,
            dtype=self.policy.dtype,
        )
        self.reward_options = options_of(config.reward, opens_thinking=self.renderer.opens_thinking)
        self.rewards = RewardPool(config.reward, self.reward_options) if self.engine.is_first_rank else None
        self.scorer = SharedScorer(self.rewards, self.engine.group)

    def run(self) -> None:
        """Train up to ``train.steps`` steps and leave the run's folder (rank 0); then ``close``.

        Raises:
            Stopped: the job was asked to stop; the checkpoint of the last step is written.
        """
        first, last = self.position.step + 1, self.config.train.steps
        if is_main_rank():
            self.report = RunReport(self.config, self.decode, first)
            self.report.plan(plan_of_run(self.config, world_size()))
            note = same_gradient_note(self.config)
            paths = layer_paths(mamba=self.policy.architecture.mamba is not None)
            layers = "layers: " + ", ".join(f"{kind} by {path}" for kind, path in paths.items())
            self.report.start(layers, self.sync.describe(), *([note] if note else []))
        signals = StopSignal()
        try:
            self.push()
            for step in range(first, last + 1):
                self.step(step)
                stop = signals.on_any_rank()
                if stop or step == last or self.checkpoint_due(step):
                    self.save(step)
                if stop and step < last:
                    raise Stopped(step)
        except BaseException:
            if self.report:
                self.report.finish(completed=False)
            raise
        if self.report:
            self.report.finish()
        self.close()

    def close(self) -> None:
        """End the reward workers, then the engine, which takes the process groups with it."""
        if self.rewards:
            self.rewards.close()
        self.engine.close()

    def step(self, step: int) -> None:
        """One iteration of the paper's algorithm."""
        self.phases.clear()
        with self.phases("step"):
            with self.phases("rollout"):
                rollouts, sampling = self.rollout(step)
            batches = mini_batches(
                rollouts, self.config.train.mini_batches, self.config.objective, self.config.rollout
            )
            due = step == 1 or step % self.config.parity.every == 0
            with self.phases("sleep"):
                self.engine.sleep(keep_weights=due)
            off_policy = self.config.train.updates_per_step > 1
            corrected = self.config.objective.correction != Correction.none
            old = self.logprobs(batches) if due or off_policy or corrected else None
            measured = self.gate(batches, old) if old and due else None
            importance = (
                ImportanceWeights.of(batches, old, self.config.objective) if old and corrected else None
            )
            ref = self.reference_logprobs(batches)
            with self.phases("update"):
                updates = [
                    self.policy.update(
                        batch,
                        self.objective,
                        old[i] if old and off_policy else None,
                        # without a reference the KL that is logged is to the policy of the step's start
                        ref[i] if ref else old[i] if old and off_policy else None,
                        importance.weights[i] if importance else None,
                    )
                    for _ in range(self.config.train.passes)
                    for i, batch in enumerate(batches)
                ]
            pushed = self.push()
        drawn = self.position.problems + self.config.train.prompts_per_step
        self.position = Position(step, drawn, self.policy.updates)
        if self.report:
            metrics = step_metrics(
                rollouts, sampling, measured, importance, updates, pushed, self.phases, self.reward_options
            )
            self.report.step(step, rollouts, metrics)

    # ---- the phases ---------------------------------------------------------------------------

    def rollout(self, step: int) -> tuple[list[PromptRollout], RolloutStats]:
        """Both stages: each engine samples its part of the step's prompts, all ranks get all."""
        count = self.config.train.prompts_per_step
        indices = self.order.take(self.position.problems, count)
        mine = list(range(self.engine.index, count, self.engine.count))
        rollouts, stats = sample(
            [self.problems[indices[position]] for position in mine],
            self.engine,
            self.renderer,
            self.scorer,
            self.config.rollout,
            seed=self.config.train.seed,
            step=step,
            positions=mine,
            stop_token_ids=self.stop_token_ids,
        )
        with self.phases("gather"):
            parts = gather_objects((mine, rollouts, stats) if self.engine.is_first_rank else None)
        return merge_parts([part for part in parts if part is not None])

    def logprobs(self, batches: list[list[TrainingSequence]]) -> list[dict[int, Tensor]]:
        """log π_old of every mini-batch: this rank's share, by index."""
        with self.phases("logprobs"):
            return [self.policy.logprobs(batch) for batch in batches]

    def gate(self, batches: list[list[TrainingSequence]], logprobs: list[dict[int, Tensor]]) -> Parity:
        """Compare with the sampler's log-probs; a run whose samples the trainer does not agree with ends."""
        measured = parity.compare(batches, logprobs)
        config = self.config
        limits = limits_of(config.parity, config.model.dtype, device.has_cuda())
        if not measured.within(limits):
            parity.refuse(measured, limits, self.suspects())
        return measured

    def suspects(self) -> list[str]:
        """The tensors that differ between policy and engine, by checksum and bit by bit.

        The engine sleeps by then, so that the log-prob pass has its memory, but keeps on the host the
        very weights that it sampled with; they come back as they do for a push.
        """
        self.policy.offload_optimizer()
        self.engine.wake(EngineMemory.weights)
        found = verify_weights(self.sync, engine_model=self.engine.model).mismatches
        return sorted({mismatch.tensor for mismatch in found})

    def reference_logprobs(self, batches: list[list[TrainingSequence]]) -> list[dict[int, Tensor]] | None:
        """log π_ref of every mini-batch; nothing is computed where β = 0."""
        if self.reference is None:
            return None
        with self.phases("ref_logprobs"), self.reference.active():
            return [self.policy.logprobs(batch) for batch in batches]

    def push(self) -> PushStats:
        """Reshard the policy's weights into the engines."""
        with self.phases("push"):
            with self.phases("offload"):
                self.policy.offload_optimizer()
            with self.phases("wake_weights"):
                self.engine.wake(EngineMemory.weights)
            pushed = self.sync.push(self.engine)
            with self.phases("wake_kv_cache"):
                self.engine.wake(EngineMemory.kv_cache)
        return pushed

    def checkpoint_due(self, step: int) -> bool:
        every = self.config.checkpoint.every
        return every > 0 and step % every == 0

    def save(self, step: int) -> None:
        """Publish the checkpoint of a finished step."""
        # the optimizer's state comes back for the while, or is gathered on the GPU: the engine makes room
        sleeps = self.config.model.offload_optimizer or device.has_cuda()
        with self.phases("checkpoint"):
            if sleeps:
                self.engine.sleep()
            path = save_checkpoint(self.checkpoints, self.policy, self.position)
        if sleeps:
            self.push()
        if self.report:
            self.report.say(f"checkpoint: {path} ({self.phases.seconds['checkpoint']:.1f} s)")
