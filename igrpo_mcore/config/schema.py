"""Every option of a run, one dataclass a component (OmegaConf structured configs).

A recipe is a short YAML over these defaults, see ``igrpo_mcore.config.load``. The text under a
field is its documentation, unit included; ``igrpo config RECIPE`` prints the resolved tree.
"""

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from igrpo_kernels import Objective, ObjectiveOptions
from omegaconf import MISSING

from igrpo_mcore.config.reward_choices import AccuracyFrom, FormatStyle
from igrpo_mcore.config.reward_options import JudgeConfig, RewardLimits


class Selection(StrEnum):
    """How the draft that conditions stage 2 is chosen."""

    best = "best"
    random = "random"
    worst = "worst"
    worst_formatted = "worst_formatted"
    mismatched = "mismatched"
    none = "none"


class DraftOverflow(StrEnum):
    """What happens to a draft that would push q' over ``rollout.max_refinement_prompt_tokens``."""

    truncate = "truncate"
    drop = "drop"


class Schedule(StrEnum):
    """When the stages of a rollout are sampled; see ``igrpo_mcore.rollout.scheduler``."""

    barrier = "barrier"
    handover = "handover"
    ahead = "ahead"


class Aggregation(StrEnum):
    """How per-token terms become one number; see ``igrpo_mcore.objective.aggregation``."""

    sequence = "sequence"
    token = "token"
    fixed_length = "fixed_length"


class Advantage(StrEnum):
    """What a completion's log-probs are pushed by; see ``igrpo_mcore.objective.advantages``."""

    group = "group"
    positive = "positive"
    raw = "raw"
    raft = "raft"


class AdvantageStd(StrEnum):
    """Divisor of the group-relative advantage; see ``igrpo_mcore.objective.advantages``."""

    sample = "sample"
    population = "population"
    none = "none"


class Correction(StrEnum):
    """Importance weights of the sampler's samples; see ``igrpo_mcore.objective.correction``."""

    none = "none"
    token = "token"
    sequence = "sequence"


class DType(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"


class Recompute(StrEnum):
    none = "none"
    full = "full"


class Resume(StrEnum):
    """What a start does in a run folder that is in use."""

    auto = "auto"
    never = "never"


@dataclass
class ModelConfig:
    path: str = MISSING
    """Hugging Face folder or hub id of the policy (and of the frozen reference)."""
    dtype: DType = DType.bfloat16
    """Parameter and activation type; float32 on machines without a GPU."""
    recompute: Recompute = Recompute.none
    """Activation recomputation in the update."""
    fused_head: bool = False
    """Make the logits of 1,024 response rows at a time inside the loss, where those of a whole micro-batch do
    not fit; same loss and gradients. It holds an fp32 gradient of the LM head besides: see docs/plan.md."""
    offload_optimizer: bool = False
    """Keep optimizer state and gradient buffers off the GPU from the end of an update to the start of
    the next, so that the engine can take their memory. Costs two copies over the host link a step."""


@dataclass
class LoRAConfig:
    rank: int = 0
    """r of the adapters; 0 trains every parameter. See ``igrpo_mcore.policy.lora``."""
    alpha: float | None = None
    """Adapters are scaled by alpha / rank; none takes rank, a scale of 1."""
    targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    """Tensors that get an adapter, by their names in the Hugging Face checkpoint (of Nemotron-H also in_proj
    and out_proj); everything else stays as it was."""

    def adapts(self, name: str) -> bool:
        """Whether a tensor of the checkpoint is a target: its name's last word but ``weight``."""
        parts = name.split(".")
        return parts[-1] == "weight" and len(parts) > 1 and parts[-2] in self.targets


@dataclass
class ParallelConfig:
    tp: int = 1
    """Tensor-parallel ranks."""
    pp: int = 1
    """Pipeline-parallel stages."""
    cp: int = 1
    """Context-parallel ranks."""
    ep: int = 1
    """Expert-parallel ranks."""
    vpp: int = 1
    """Virtual pipeline chunks a stage (interleaved schedule)."""
    sp: bool = False
    """Sequence parallelism inside the tensor-parallel group."""
    dp: int | None = None
    """Data-parallel replicas; none takes what the world size gives (1 where ``igrpo train`` starts
    the ranks itself)."""


class Curriculum(StrEnum):
    """The order within an epoch."""

    none = "none"
    easy_to_hard = "easy_to_hard"


@dataclass
class MixtureSet:
    """A problem set beside ``data.path``; what is not given is as there."""

    path: str = MISSING
    """As ``data.path``."""
    weight: float = 1.0
    """As ``data.weight``."""
    subset: str | None = None
    """Configuration of a hub data set."""
    split: str | None = None
    """Split of a hub data set."""
    problem_field: str | None = None
    """Column that holds the problem text."""
    answer_field: str | None = None
    """Column that holds the reference answer."""


@dataclass
class DataConfig:
    path: str = MISSING
    """JSONL or Parquet file, a Hugging Face data set id, or ``reasoning_gym:TASK,TASK…`` for problems that
    reasoning-gym generates."""
    subset: str | None = None
    """Configuration of a hub data set, such as gsm8k's main; none takes its default."""
    split: str = "train"
    """Split of a hub data set."""
    problem_field: str = "problem"
    """Column that holds the problem text."""
    answer_field: str = "answer"
    """Column that holds the reference answer."""
    size: int = 1000
    """Problems that each generated task is asked for; equal texts are kept once."""
    seed: int = 0
    """Seed of generated problems."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of generated tasks, ``{task: {option: value}}``, as reasoning-gym names them."""
    mixture: list[MixtureSet] = field(default_factory=list)
    """Further sets to draw problems from, ``[{path: …, weight: …}, …]``; filters below hold for each set."""
    weight: float = 1.0
    """Share of ``data.path`` among the problems drawn, relative to the weights of ``data.mixture``."""
    max_problem_characters: int | None = None
    """Leave out longer problem texts."""
    drop_long_prompts: bool = False
    """Leave out problems whose prompt is over ``rollout.max_prompt_tokens``; otherwise one is an error."""
    answer_pattern: str | None = None
    """Keep problems whose answer holds a match of this regular expression (Python's)."""
    drop_duplicates: bool = False
    """Keep the first of problems with the same text, white space and case aside, in each set."""
    pass_rate_field: str | None = None
    """Column that holds the share of right answers to a problem, 0 to 1, by which model is up to you."""
    min_pass_rate: float = 0.0
    """Leave out harder problems; needs ``data.pass_rate_field``."""
    max_pass_rate: float = 1.0
    """Leave out easier problems; needs ``data.pass_rate_field``."""
    limit: int | None = None
    """Take the first so many problems of each set that are left after all filters but drop_long_prompts."""
    curriculum: Curriculum = Curriculum.none
    """easy_to_hard goes through each epoch by falling pass rate; needs ``data.pass_rate_field``."""
    shuffle: bool = True
    """Reshuffle each epoch, by ``train.seed``; under a curriculum, problems of equal pass rate."""
    system_prompt: str | None = None
    """System message; none sends only the problem as the user's message."""
    chat_template: str | None = None
    """Chat template (Jinja), its text or the path of a .jinja file, for a base model or in place of the
    checkpoint's. It also writes the tokens that open a sequence. None takes the checkpoint's; without
    any, prompts are plain text that ends in ``igrpo_mcore.data.templates.ANSWER_CUE``."""


@dataclass
class RolloutConfig:
    tp: int = 1
    """vLLM tensor-parallel ranks an engine; world size / tp engines live in the ranks."""
    num_drafts: int = 4
    """N, completions a prompt in each round of drafts."""
    draft_rounds: int = 1
    """Rounds of N drafts before the refinements, each after the first conditioned on the chosen draft of the
    round before; the paper has one."""
    num_refinements: int = 4
    """G, completions a prompt in the last stage, which the update is taken on."""
    selection: Selection = Selection.best
    """Which draft conditions stage 2: best, random, worst, worst_formatted (the worst of those that the
    format reward calls well-formed), mismatched (the best draft of another problem of the step; see
    ``igrpo_mcore.rollout.selection``); ``none`` is plain GRPO with the same budget N + G."""
    temperature: float = 0.7
    """Sampling temperature; the objective's log-probs are taken at the same temperature."""
    max_prompt_tokens: int = 1024
    """Budget of the bare prompt q, tokens; a longer one is an error."""
    max_completion_tokens: int = 4096
    """Budget of a completion, tokens."""
    max_draft_tokens: int | None = None
    """Budget of a draft, tokens; none takes ``max_completion_tokens``. Plain GRPO has no drafts."""
    schedule: Schedule = Schedule.handover
    """barrier: every prompt of an engine has its drafts before the first refinement is sampled; handover:
    a prompt's refinements begin as soon as its own drafts are scored, which changes no seed; ahead: besides,
    the next step's drafts are sampled beside this step's refinements, by the same weights, so that a draft
    is one update old where it conditions (ours, docs/rollout.md)."""
    draft_early_exit: bool = False
    """End a prompt's other drafts once one has ``reward.greatest``; needs ``selection=best``. What is then
    known of the drafts is censored, see ``whole_prompts``."""
    whole_prompts: float = 0.125
    """Share of prompts whose drafts all end by themselves under ``draft_early_exit``, drawn by seed: the
    unbiased single-shot figures."""
    score_steps: int = 4
    """Decoding steps after which a completion's reward is used, so that it is computed while others are
    sampled; one that is not there by then is waited for. The order of a rollout depends on nothing else."""
    eager: bool = False
    """Use a reward as soon as it is there: nothing waits, but the order in which prompts go on (and with it
    rounding, and which draft an early exit takes) then depends on the clock."""
    lag: int = 0
    """Updates between the sampling of what is trained on and its update, beyond the one that follows it:
    0 (paper) or 1, which needs ``objective.correction``."""
    max_refills: int = 0
    """Rounds in which problems whose trained group has no spread of accuracy (of reward, without that
    reward) are replaced by the next ones (DAPO's dynamic sampling); 0 keeps every group."""
    max_refinement_prompt_tokens: int | None = None
    """Budget of q' (prompt with its draft), tokens; none leaves room for the longest prompt, the longest
    draft and the text of ``draft_template``, see ``refinement_prompt_budget``."""
    draft_overflow: DraftOverflow = DraftOverflow.truncate
    """A draft that does not fit: keep its last tokens that do, or leave it out (q' = q). Counted."""
    keep_draft_thinking: bool = True
    """Keep the draft's <think> part in q'; false appends only what follows ``</think>``."""
    draft_template: str = "{problem}\n\nPrior draft:\n{draft}"
    """User message of stage 2. The paper gives no delimiter; this is ours."""
    max_concurrent_sequences: int = 256
    """Sequences an engine runs at once."""
    memory_fraction: float = 0.5
    """Share of GPU memory that vLLM may take while awake (GPU only)."""
    kv_cache_bytes: int = 67108864
    """Size of the KV cache on a machine without a GPU, bytes."""
    push_bucket_bytes: int = 536870912
    """Weights are pushed in buckets of at most this size on a rank, bytes; two are in flight. A module
    whose share is larger makes a bucket of its own."""
    enforce_eager: bool = False
    """No CUDA graphs (always so on the CPU)."""

    @property
    def refinement_prompt_budget(self) -> int:
        """Tokens that q' may have. The template's own text counts at one token a UTF-8 byte, which no
        byte-level vocabulary exceeds."""
        if self.max_refinement_prompt_tokens is not None:
            return self.max_refinement_prompt_tokens
        around = self.draft_template.replace("{problem}", "").replace("{draft}", "")
        return self.max_prompt_tokens + self.draft_tokens + len(around.encode())

    @property
    def draft_tokens(self) -> int:
        """Tokens that a draft may have."""
        return self.max_draft_tokens or self.max_completion_tokens

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt: q', or q under plain GRPO, which has no other."""
        plain = self.selection == Selection.none
        return self.max_prompt_tokens if plain else self.refinement_prompt_budget

    @property
    def longest_sequence(self) -> int:
        """Tokens of the longest prompt with the longest completion."""
        return self.longest_prompt + self.max_completion_tokens


@dataclass
class RewardConfig:
    weights: dict[str, float] = field(default_factory=lambda: {"accuracy": 1.0, "format": 1.0})
    """Weight by reward: a registered name, or ``module:function`` of the user's own."""
    accuracy_from: AccuracyFrom = AccuracyFrom.answer_tag
    """Where accuracy looks for the answer, as the prompt asks: answer_tag (``<answer>…</answer>``),
    boxed (``\\boxed{…}``) or anywhere (the last value that the text states). No answer there scores 0."""
    format_style: FormatStyle = FormatStyle.paper
    """The shape that format asks for: paper (``<think>…</think><answer>…</answer>`` with any white space
    between the parts) or open_r1 (open-r1's pattern, every tag on a line of its own)."""
    greatest: float | None = None
    """Greatest total reward that a completion can have, for ``rollout.draft_early_exit``; none takes the sum
    of the positive weights, as registered rewards end at 1. To be given beside a reward of your own."""
    overlong_buffer: float = 0.0
    """The last share of ``rollout.max_completion_tokens``, over which the reward overlong falls from 0 to -1
    (DAPO's soft overlong punishment, 0.2 there); give it a weight too, as reward.weights.overlong=1."""
    time_limit_s: float = 10.0
    """Seconds one reward call may take; a slower one scores 0 and its worker is ended."""
    workers: int | None = None
    """Worker processes a rollout engine; none takes the machine's cores divided by its ranks, 1 to 4."""
    limits: RewardLimits = field(default_factory=RewardLimits)
    judge: JudgeConfig = field(default_factory=JudgeConfig)


@dataclass
class ObjectiveConfig(ObjectiveOptions):
    """The kernels' own options, whose formula and checks lie beside them, and those of a step."""

    aggregation: Aggregation = Aggregation.sequence
    """sequence: mean over a sequence's tokens, then over the group (paper); token: mean over all
    tokens of the batch (DAPO); fixed_length: sum over tokens / max_completion_tokens (Dr. GRPO)."""
    advantage: Advantage = Advantage.group
    """group: the reward centred in its group, divided by ``advantage_std`` (GRPO, iGRPO, RGRA); positive:
    that, with 0 in place of what is negative; raw: the reward itself (REINFORCE without a baseline); raft:
    cross-entropy on the group's best completion, the first on a tie (asks for kind=reinforce)."""
    advantage_std: AdvantageStd = AdvantageStd.sample
    """Divisor of the centred reward: the std with n - 1 degrees of freedom (paper, section 3.1), with n,
    or none (Dr. GRPO's advantage)."""
    correction: Correction = Correction.none
    """Truncated importance weights min(π_old / π_sampler, correction_cap) on the objective: of each token,
    or of the whole sequence. With one update a step π_old is taken from that update's own forward pass."""
    correction_cap: float = 2.0
    """C of the truncated weights, at least 1 (verl's default, 2)."""
    draft_weight: float = 0.0
    """Weight of the GRPO loss of the earlier stages' groups, an extension of ours (0 is the paper)."""
    original_prompt_weight: float = 0.0
    """Weight of a second loss on the refinements, taken under the original prompt q with the mean reward of
    the first stage's drafts as baseline, after RLTF-SD (arXiv 2602.02482); an extension of ours (0 is the
    paper). See ``igrpo_mcore.objective.original_prompt``."""

    def at(self, temperature: float) -> Objective:
        """What the kernels compute, for samples of this temperature."""
        options = {option.name: getattr(self, option.name) for option in fields(ObjectiveOptions)}
        return Objective(**options, temperature=temperature)


@dataclass
class OptimizerConfig:
    lr: float = 1e-6
    """Peak learning rate (AdamW)."""
    min_lr_ratio: float = 0.1
    """The cosine ends at min_lr_ratio x lr."""
    warmup_ratio: float = 0.1
    """Share of the optimizer steps that warm up linearly from 0."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    beta1: float = 0.9
    """First-moment decay of AdamW."""
    beta2: float = 0.999
    """Second-moment decay of AdamW."""
    eps: float = 1e-8
    """AdamW's denominator floor."""
    grad_clip: float = 1.0
    """Global gradient-norm clip."""


@dataclass
class TrainConfig:
    steps: int = 100
    """Steps of sampling and updating."""
    seed: int = 0
    """Seed of data order, sampling and draft choice."""
    prompts_per_step: int = 16
    """S, problems a step over all ranks."""
    mini_batches: int = 1
    """Parts that a step's prompts are dealt to, one optimizer update each; the paper takes 1."""
    passes: int = 1
    """Times that the update goes over a step's samples (PPO's epochs); the paper takes 1. A step makes
    passes x mini_batches updates."""
    micro_batch_tokens: int = 8192
    """Token budget of a packed micro-batch on one data-parallel rank; a longer sequence gets a
    micro-batch of its own."""

    max_skipped_updates: int = 0
    """Updates in a row that may be skipped because loss or gradient is not finite; one more ends the run. 0
    ends it at the first: a run in which that happens is seldom worth its GPUs unseen."""

    @property
    def updates_per_step(self) -> int:
        """Optimizer updates that a step makes of its samples."""
        return self.passes * self.mini_batches


@dataclass
class ParityConfig:
    every: int = 1
    """Steps between comparisons of the sampler's log-probs with the trainer's; step 1 always."""
    sequences: int | None = 64
    """Sequences of the batch that a comparison takes, drawn by ``train.seed`` and step; none takes all. Where
    a step makes several updates, which need the log-probs of every sequence, it is always all."""
    mean_threshold: float | None = None
    """Largest mean difference allowed, nats; none takes the default of dtype and device, see
    ``igrpo_mcore.config.parity_limits``."""
    quantile_threshold: float | None = None
    """Largest difference allowed at the 99.9 % quantile, nats; none as above. The maximum is only logged."""


@dataclass
class EvalConfig:
    path: str | None = None
    """Held-out problems, of ``igrpo eval`` without ``--suite`` and of ``every``, as ``data.path``; none takes
    the held-out ones of a generated ``data.path``."""
    every: int = 0
    """Steps between evaluations on the held-out problems while training, and one after the last step; 0
    evaluates only by ``igrpo eval``."""
    subset: str | None = None
    """Configuration of a hub data set, such as gsm8k's main; none takes its default."""
    split: str = "test"
    """Split of a hub data set."""
    problems: int = 64
    """Held-out problems that are taken, the first ones."""
    template: str = "{problem}"
    """The user's message of an evaluation, around the problem's text."""
    samples: int = 8
    """Completions a problem, sampled single-shot from q."""
    temperature: float = 0.6
    """Sampling temperature (0.6 and top-p 0.95 are the paper's)."""
    top_p: float = 0.95
    """Nucleus of the sampling."""
    batch_completions: int = 512
    """Completions sampled in one go, whole problems, over all engines; written when all are there, so this is
    what a killed evaluation loses at most."""
    keep_tokens: bool = False
    """Write each completion's token ids and log-probs beside its text."""


@dataclass
class CheckpointConfig:
    every: int = 50
    """Steps between checkpoints; 0 writes one only at the end and when the job is asked to stop."""
    keep: int = 2
    """Newest checkpoints that are kept."""
    keep_best: bool = True
    """Where ``eval.every`` evaluates: write a checkpoint of each step whose held-out accuracy is the best so
    far, and keep the best one beside the newest; ``--step best`` names it."""
    asynchronous: bool = True
    """Write in the background: training waits only for a copy of the state in host memory. The last one, and
    the one of a request to stop, are waited for."""
    resume: Resume = Resume.auto
    """auto: a run whose folder exists goes on from its newest checkpoint (from step 1 where it has
    none yet); never: such a folder is refused."""


@dataclass
class RunConfig:
    name: str | None = None
    """The run's folder is ``dir/name``; none takes the recipe's name, numbered where it is in use."""
    dir: str = "runs"
    """Folder of all runs."""
    tensorboard: bool = True
    """Write TensorBoard events."""
    wandb_project: str | None = None
    """Weights & Biases project; none does not log there."""
    mlflow_experiment: str | None = None
    """MLflow experiment (the extra ``mlflow``); none does not log there."""
    journal: bool = True
    """Keep completions and their rewards in the run's folder ``journal`` until a checkpoint has their step:
    a run that was killed goes on with them. About 12 bytes a token."""
    samples_per_step: int = 2
    """Prompts a step written to samples.jsonl with drafts and refinements."""
    profile_steps: list[int] = field(default_factory=list)
    """Steps of which every rank writes a torch-profiler trace into the run's folder ``traces``."""
    hang_minutes: float | None = 10.0
    """Minutes without progress on any rank after which the job ends, with every rank's stack in the run's
    folder ``watch`` (before step 1 at least 15); none leaves it to torch.distributed's time limit. Progress
    is a phase's begin or end, a decoding step, a reward's answer, a micro-batch, a MiB read or written."""


@dataclass
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    parity: ParityConfig = field(default_factory=ParityConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    run: RunConfig = field(default_factory=RunConfig)
