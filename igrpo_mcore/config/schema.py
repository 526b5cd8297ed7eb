"""Every option of a run, one dataclass a component (OmegaConf structured configs).

A recipe is a short YAML over these defaults, see ``igrpo_mcore.config.load``. The text under a
field is its documentation, unit included; ``igrpo config RECIPE`` prints the resolved tree.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from igrpo_mcore.config.reward_choices import AccuracyFrom, FormatStyle


class Selection(StrEnum):
    """How the draft that conditions stage 2 is chosen."""

    best = "best"
    random = "random"
    worst = "worst"
    none = "none"


class DraftOverflow(StrEnum):
    """What happens to a draft that would push q' over ``rollout.max_prompt_tokens``."""

    truncate = "truncate"
    drop = "drop"


class ObjectiveKind(StrEnum):
    clip = "clip"
    reinforce = "reinforce"
    cispo = "cispo"
    gspo = "gspo"


class Aggregation(StrEnum):
    """How per-token terms become one number; see ``igrpo_mcore.objective.aggregation``."""

    sequence = "sequence"
    token = "token"
    fixed_length = "fixed_length"


class AdvantageStd(StrEnum):
    """Divisor of the group-relative advantage."""

    population = "population"
    sample = "sample"
    none = "none"


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
    offload_optimizer: bool = False
    """Keep optimizer state and gradient buffers off the GPU from the end of an update to the start of
    the next, so that the engine can take their memory. Costs two copies over the host link a step."""


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


@dataclass
class DataConfig:
    path: str = MISSING
    """JSONL or Parquet file, or a Hugging Face data set id."""
    split: str = "train"
    """Split of a hub data set."""
    problem_field: str = "problem"
    """Column that holds the problem text."""
    answer_field: str = "answer"
    """Column that holds the reference answer."""
    shuffle: bool = True
    """Reshuffle each epoch, by ``train.seed``."""
    system_prompt: str | None = None
    """System message; none sends only the problem as the user's message."""


@dataclass
class RolloutConfig:
    tp: int = 1
    """vLLM tensor-parallel ranks an engine; world size / tp engines live in the ranks."""
    num_drafts: int = 4
    """N, completions a prompt in stage 1."""
    num_refinements: int = 4
    """G, completions a prompt in stage 2."""
    selection: Selection = Selection.best
    """Which draft conditions stage 2; ``none`` is plain GRPO with the same budget N + G."""
    temperature: float = 0.7
    """Sampling temperature; the objective's log-probs are taken at the same temperature."""
    max_prompt_tokens: int = 1024
    """Budget of q' (prompt with its draft), tokens. A bare prompt over it is an error."""
    max_completion_tokens: int = 4096
    """Budget of a completion, tokens."""
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
    time_limit_s: float = 10.0
    """Seconds one reward call may take; a slower one scores 0 and its worker is ended."""
    workers: int = 1
    """Worker processes a rollout engine."""


@dataclass
class ObjectiveConfig:
    kind: ObjectiveKind = ObjectiveKind.clip
    """clip (GRPO, iGRPO, DAPO, Dr. GRPO), reinforce (RGRA), cispo, gspo."""
    clip_low: float = 0.2
    """Ratios below 1 - clip_low are clipped."""
    clip_high: float = 0.2
    """Ratios above 1 + clip_high are clipped."""
    dual_clip: float | None = None
    """Lower bound c of the objective for negative advantages (dual clip), none for off."""
    kl_coef: float = 0.0
    """beta; 0 skips the reference entirely."""
    kl_kind: str = "k3"
    """Estimator of the KL to the reference: k1, k2 or k3."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    aggregation: Aggregation = Aggregation.sequence
    """sequence: mean over a sequence's tokens, then over the group (paper); token: mean over all
    tokens of the batch (DAPO); fixed_length: sum over tokens / max_completion_tokens (Dr. GRPO)."""
    advantage_std: AdvantageStd = AdvantageStd.population
    """Divisor of the centred reward; none gives Dr. GRPO's advantage."""
    draft_weight: float = 0.0
    """Weight of the GRPO loss of the draft group under q, an extension of ours (0 is the paper)."""


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
    """Optimizer updates a step; the paper takes 1."""
    micro_batch_tokens: int = 8192
    """Token budget of a packed micro-batch on one data-parallel rank; a longer sequence gets a
    micro-batch of its own."""


@dataclass
class ParityConfig:
    every: int = 1
    """Steps between comparisons of the sampler's log-probs with the trainer's; step 1 always."""
    threshold: float | None = None
    """Largest difference allowed, nats; none takes 1e-4 in float32, and in bfloat16 0.5."""


@dataclass
class CheckpointConfig:
    every: int = 50
    """Steps between checkpoints; 0 writes one only at the end and when the job is asked to stop."""
    keep: int = 2
    """Newest checkpoints that are kept."""
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
    samples_per_step: int = 2
    """Prompts a step written to samples.jsonl with drafts and refinements."""


@dataclass
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    parity: ParityConfig = field(default_factory=ParityConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    run: RunConfig = field(default_factory=RunConfig)
