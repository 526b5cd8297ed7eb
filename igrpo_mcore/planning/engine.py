"""What a vLLM engine (0.32) takes of one GPU while it is awake, and how many sequences its cache holds."""

from dataclasses import dataclass

from igrpo_mcore.config.schema import Config
from igrpo_mcore.families.architecture import Architecture
from igrpo_mcore.planning.catalogue import PlannedModel, itemsize
from igrpo_mcore.planning.gpus import GIB, GPU
from igrpo_mcore.planning.parameters import engine_weight_bytes

GRAPHS_BYTES = int(0.7 * GIB)
"""CUDA graphs of one engine rank; vLLM profiles them at start and takes them off the KV cache. Assumed."""

_BLOCK_TOKENS = 16
MAMBA_PAGES = 3
"""Pages of a sequence in each Mamba layer, prefix caching being on: the state at the last block and the
running one, and one that a prefill leaves (``MambaSpec.max_memory_usage_bytes``, mode "align")."""


@dataclass(frozen=True)
class EngineBytes:
    """One engine rank awake, bytes; together they are ``rollout.memory_fraction`` of the GPU.

    ``kv_cache`` is what the fraction leaves after the others, as in ``Worker.determine_available_memory``;
    ``sequence_bytes`` is the cache of one sequence of the greatest length.
    """

    requested: int
    weights: int
    activations: int
    graphs: int
    kv_cache: int
    sequence_bytes: int

    @property
    def refused(self) -> bool:
        """vLLM does not start: its cache could not hold one sequence of the greatest length."""
        return self.kv_cache < self.sequence_bytes


def kv_bytes_per_token(architecture: Architecture, tp: int) -> int:
    """Keys and values of all attention layers on one engine rank; heads are replicated beyond."""
    heads = max(1, architecture.kv_heads // tp)
    return architecture.pattern.count("*") * 2 * heads * architecture.head_dim * itemsize(architecture)


def state_bytes(architecture: Architecture, tp: int) -> int:
    """Mamba state of one sequence on one engine rank: of all layers the convolution window in the model's
    type and the SSM state in fp32 (``MambaStateShapeCalculator.mamba2_state_shape``;
    ``NemotronHForCausalLMConfig.DEFAULT_MAMBA_SSM_CACHE_DTYPE``)."""
    m = architecture.mamba
    if m is None:
        return 0
    groups = -(-m.groups // tp) * tp
    window = (m.heads * m.head_dim + 2 * groups * m.state_dim) // tp * 3
    state = m.heads // tp * m.head_dim * m.state_dim
    return architecture.pattern.count("M") * (window * itemsize(architecture) + state * 4)


def sequence_bytes(architecture: Architecture, tp: int, tokens: int) -> int:
    """Cache of one sequence. With Mamba layers vLLM makes pages of attention and Mamba layers equally
    large (``_align_hybrid_block_size``), so an attention page holds a Mamba state's worth of tokens; and
    a Mamba layer has ``MAMBA_PAGES``."""
    if architecture.mamba is None:
        blocks = -(-tokens // _BLOCK_TOKENS)
        return blocks * _BLOCK_TOKENS * kv_bytes_per_token(architecture, tp)
    mamba_layers, attention_layers = architecture.pattern.count("M"), architecture.pattern.count("*")
    page = state_bytes(architecture, tp) // mamba_layers
    token = kv_bytes_per_token(architecture, tp) // max(1, attention_layers)
    block = -(-page // max(1, token) // _BLOCK_TOKENS) * _BLOCK_TOKENS if attention_layers else 1
    pages = MAMBA_PAGES * mamba_layers + attention_layers * -(-tokens // block)
    return pages * max(page, block * token)


def cache_tokens(architecture: Architecture, tp: int, kv_cache: int) -> tuple[int, int]:
    """(tokens that a cache of ``kv_cache`` bytes holds, tokens' worth that a sequence takes besides: its
    Mamba states)."""
    token = kv_bytes_per_token(architecture, tp)
    return max(0, kv_cache) // token, sequence_bytes(architecture, tp, 0) // token


def activation_bytes(architecture: Architecture, config: Config, gpu: GPU) -> int:
    """Peak of vLLM's profiling pass: ``max_num_batched_tokens`` rows through the widest layer, and the
    gathered fp32 logits of all sequences with their log-softmax and its copy (processed_logprobs)."""
    a, tp, b = architecture, config.rollout.tp, itemsize(architecture)
    widths = [
        (3 if a.gated_mlp else 2) * a.ffn_hidden,
        2 * (a.heads + a.kv_heads) * a.head_dim,
    ]
    if a.mamba is not None:
        inner = a.mamba.heads * a.mamba.head_dim
        widths.append(4 * inner + 4 * a.mamba.groups * a.mamba.state_dim)
    rows = gpu.engine_prefill_tokens * b * (3 * a.hidden + max(widths) // tp)
    logits = 3 * 4 * config.rollout.max_concurrent_sequences * a.vocab_size
    return rows + logits


def engine_bytes(model: PlannedModel, config: Config, gpu: GPU) -> EngineBytes:
    """The engine's parts on the fullest rank."""
    rollout, a = config.rollout, model.architecture
    requested = int(rollout.memory_fraction * gpu.memory_bytes)
    weights = engine_weight_bytes(model, rollout.tp)
    activations = activation_bytes(a, config, gpu)
    graphs = 0 if rollout.enforce_eager else GRAPHS_BYTES
    longest = rollout.longest_sequence
    return EngineBytes(
        requested=requested,
        weights=weights,
        activations=activations,
        graphs=graphs,
        kv_cache=requested - weights - activations - graphs,
        sequence_bytes=sequence_bytes(a, rollout.tp, longest),
    )
