"""What a Hugging Face config says of a model, in the terms Megatron-Core asks for.

Every family is one ``HybridModel`` layer pattern: a transformer block is two layers, attention
``*`` then MLP ``-``; Nemotron-H's layers (Mamba ``M``, ``*``, ``-``) map one to one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igrpo_mcore.config.schema import ParallelConfig
from igrpo_mcore.errors import UserError, one_line
from igrpo_mcore.weights.rules import VLLM_VOCABULARY_MULTIPLE

# transformers 5 calls the Mamba blocks linear_attention and the attention blocks full_attention
_NEMOTRON_SYMBOLS = {
    "mamba": "M",
    "linear_attention": "M",
    "attention": "*",
    "full_attention": "*",
    "mlp": "-",
}


@dataclass(frozen=True)
class Mamba:
    """Mamba-2 mixer sizes: heads, width a head, state, groups that share B and C."""

    heads: int
    head_dim: int
    state_dim: int
    groups: int


@dataclass(frozen=True)
class Architecture:
    """A decoder's shape. Sizes are whole-model, before any parallel split."""

    family: str
    pattern: str
    hidden: int
    ffn_hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    norm_eps: float
    tied_embeddings: bool
    qkv_bias: bool
    qk_norm: bool
    gated_mlp: bool
    rope_theta: float | None
    rope_scaling: dict[str, Any] | None
    mamba: Mamba | None
    dtype: str

    @property
    def layers(self) -> int:
        """Hybrid layers, the length of the pattern."""
        return len(self.pattern)


def load_hf_config(path: str | Path):
    """transformers' config of a folder or hub id.

    Raises:
        UserError: the folder or id cannot be read or is a GGUF file, or a field has a wrong type.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    if str(path).endswith(".gguf"):
        raise UserError(
            f"model.path={path} is a GGUF file; make a folder of it with `igrpo import-gguf {path} --out "
            "FOLDER` and set model.path=FOLDER"
        )
    try:
        return AutoConfig.from_pretrained(path)
    except StrictDataclassError as error:
        reason, mend = " ".join(str(error).split()), "mend it or fetch the checkpoint again"
        raise UserError(f"{path}: config.json cannot be used ({reason}); {mend}") from error
    except (OSError, ValueError) as error:
        where = "folder" if Path(path).exists() else "folder or hub id"
        raise UserError(
            f"model.path={path!r} is no readable Hugging Face {where} ({one_line(error)}); "
            "give a folder with config.json, or make a small one with "
            f"`igrpo tiny --family qwen3 --out {path}`"
        ) from error


def _rope(config: Any) -> tuple[float, dict[str, Any] | None]:
    parameters = dict(getattr(config, "rope_parameters", None) or {})
    theta = float(parameters.pop("rope_theta", getattr(config, "rope_theta", None) or 10000.0))
    kind = parameters.pop("rope_type", "default")
    if kind == "default":
        return theta, None
    if kind == "llama3":
        return theta, parameters
    raise UserError(
        f"rotary embeddings of type {kind!r} are not supported; use a checkpoint with type default or llama3"
    )


def _refuse_if(condition: bool, config: Any, what: str) -> None:
    if condition:
        raise UserError(
            f"{type(config).__name__} with {what} is not supported; "
            "use a Qwen2, Qwen3, Llama or Nemotron-H checkpoint without it"
        )


def architecture_of(config: Any, dtype: str = "bfloat16") -> Architecture:
    """Read a transformers config.

    Raises:
        UserError: an unsupported family or a feature of it that the policy does not implement.
    """
    family = config.model_type
    if family not in ("qwen2", "qwen3", "llama", "nemotron_h"):
        raise UserError(
            f"model type {family!r} is not supported; supported are llama, nemotron_h, qwen2 and qwen3"
        )
    common: dict[str, Any] = dict(
        family=family,
        hidden=config.hidden_size,
        ffn_hidden=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        vocab_size=config.vocab_size,
        tied_embeddings=config.tie_word_embeddings,
        dtype=dtype,
    )
    if family == "nemotron_h":
        _refuse_if(config.mlp_hidden_act != "relu2", config, f"mlp_hidden_act={config.mlp_hidden_act}")
        _refuse_if(bool(config.mlp_bias), config, "mlp_bias")
        _refuse_if(bool(config.attention_bias), config, "attention_bias")
        _refuse_if(bool(config.use_bias), config, "use_bias")
        _refuse_if(not config.use_conv_bias, config, "use_conv_bias=false")
        limit = tuple(getattr(config, "time_step_limit", None) or (0.0, float("inf")))
        _refuse_if(limit != (0.0, float("inf")), config, f"time_step_limit={limit}")
        _refuse_if(config.conv_kernel != 4, config, f"conv_kernel={config.conv_kernel}")
        blocks = config.layers_block_type
        unknown = sorted(set(blocks) - set(_NEMOTRON_SYMBOLS))
        _refuse_if(bool(unknown), config, f"blocks of type {unknown}")
        return Architecture(
            **common,
            pattern="".join(_NEMOTRON_SYMBOLS[block] for block in blocks),
            norm_eps=config.layer_norm_epsilon,
            qkv_bias=False,
            qk_norm=False,
            gated_mlp=False,
            rope_theta=None,
            rope_scaling=None,
            mamba=Mamba(
                heads=config.mamba_num_heads,
                head_dim=config.mamba_head_dim,
                state_dim=config.ssm_state_size,
                groups=config.n_groups,
            ),
        )
    _refuse_if(config.hidden_act != "silu", config, f"hidden_act={config.hidden_act}")
    _refuse_if(bool(getattr(config, "mlp_bias", False)), config, "mlp_bias")
    _refuse_if(family != "qwen2" and bool(getattr(config, "attention_bias", False)), config, "attention_bias")
    _refuse_if(bool(getattr(config, "use_sliding_window", False)), config, "sliding-window attention")
    theta, scaling = _rope(config)
    return Architecture(
        **common,
        pattern="*-" * config.num_hidden_layers,
        norm_eps=config.rms_norm_eps,
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        gated_mlp=True,
        rope_theta=theta,
        rope_scaling=scaling,
        mamba=None,
    )


def padded_vocab_size(architecture: Architecture, tp: int) -> int:
    """Vocabulary rounded up so that each tensor-parallel rank holds equally many columns.

    Real vocabularies are padded to a multiple of 128 x tp (efficient GEMM shapes); small ones only
    to a multiple of tp.
    """
    multiple = 128 * tp if architecture.vocab_size >= 4096 else tp
    return -(-architecture.vocab_size // multiple) * multiple


def pipeline_pattern(architecture: Architecture, stages: int) -> str:
    """The layer pattern with ``|`` between pipeline stages, evenly.

    A transformer's attention and MLP layer of one block stay together.
    """
    unit = 2 if architecture.mamba is None else 1
    per_stage = architecture.layers // unit // stages * unit
    pattern = architecture.pattern
    return "|".join(pattern[i : i + per_stage] for i in range(0, len(pattern), per_stage))


def _engine_cuts(architecture: Architecture, tp: int) -> str | None:
    """What a vLLM engine (0.32) of ``tp`` ranks would have to cut through; None where it can be divided.

    Key-value heads, and a single Mamba group, are copied to several ranks where there are more ranks.
    """
    heads, rows, mamba = architecture.kv_heads, architecture.vocab_size, architecture.mamba
    if heads % tp and tp % heads:
        return f"key-value heads (rollout.tp neither divides nor is a multiple of {heads})"
    if architecture.ffn_hidden % tp:
        return f"columns of the MLP (width {architecture.ffn_hidden})"
    if -(-rows // VLLM_VOCABULARY_MULTIPLE) * VLLM_VOCABULARY_MULTIPLE % tp:
        return f"rows of the vocabulary ({rows}, padded to a multiple of {VLLM_VOCABULARY_MULTIPLE})"
    if mamba and mamba.heads % tp:
        return f"Mamba heads (there are {mamba.heads})"
    if mamba and mamba.groups != 1 and mamba.groups % tp:
        return f"Mamba groups (there are {mamba.groups})"
    return None


def _check_rollout_tp(architecture: Architecture, tp: int) -> None:
    if cut := _engine_cuts(architecture, tp):
        fitting = [
            n
            for n in range(1, min(64, architecture.heads) + 1)
            if architecture.heads % n == 0 and not _engine_cuts(architecture, n)
        ]
        raise UserError(f"rollout.tp={tp} would cut through {cut}; choose one of {fitting}")


def check_layout(
    architecture: Architecture, parallel: ParallelConfig, rollout_tp: int, world_size: int
) -> None:
    """Refuse a parallel layout that the model or the world cannot carry.

    Raises:
        UserError: naming the field, the numbers that do not divide, and what would.
    """

    def divides(field: str, value: int, what: str, total: int) -> None:
        if value < 1:
            raise UserError(f"{field}={value} must be at least 1")
        if total % value:
            fitting = [d for d in range(1, total + 1) if total % d == 0 and d <= 64]
            raise UserError(f"{field}={value} does not divide {what} ({total}); choose one of {fitting}")

    tp, stages = parallel.tp, parallel.pp * parallel.vpp
    divides("parallel.tp", tp, "the attention heads", architecture.heads)
    divides("parallel.tp", tp, "the key-value heads", architecture.kv_heads)
    divides("parallel.tp", tp, "the MLP width", architecture.ffn_hidden)
    divides("rollout.tp", rollout_tp, "the attention heads", architecture.heads)
    _check_rollout_tp(architecture, rollout_tp)
    if architecture.mamba is not None:
        divides("parallel.tp", tp, "the Mamba groups", architecture.mamba.groups)
        divides("parallel.tp", tp, "the Mamba heads", architecture.mamba.heads)
    blocks = architecture.layers if architecture.mamba else architecture.layers // 2
    what = "the layers" if parallel.vpp == 1 else "(with parallel.vpp) the layers"
    divides("parallel.pp" if parallel.vpp == 1 else "parallel.pp x parallel.vpp", stages, what, blocks)
    if parallel.vpp > 1 and parallel.pp == 1:
        raise UserError(f"parallel.vpp={parallel.vpp} needs parallel.pp > 1; set parallel.vpp=1")
    if parallel.vpp > 1 and architecture.mamba is not None:
        raise UserError("parallel.vpp > 1 is not supported with Mamba layers; set parallel.vpp=1")
    if parallel.cp != 1:
        raise UserError(f"parallel.cp={parallel.cp} is not supported yet; set parallel.cp=1")
    if parallel.ep != 1:
        raise UserError(f"parallel.ep={parallel.ep} needs a model with expert layers; set parallel.ep=1")
    if parallel.sp and tp == 1:
        raise UserError("parallel.sp=true needs parallel.tp > 1; set parallel.sp=false")
    model_ranks = tp * parallel.pp
    if world_size % model_ranks:
        raise UserError(
            f"parallel.tp x parallel.pp = {model_ranks} does not divide the {world_size} ranks; "
            f"start a multiple of {model_ranks} ranks or change the layout"
        )
    if parallel.dp is not None and parallel.dp * model_ranks != world_size:
        raise UserError(
            f"parallel.dp={parallel.dp} with tp x pp = {model_ranks} needs {parallel.dp * model_ranks} "
            f"ranks, there are {world_size}; set parallel.dp={world_size // model_ranks} or leave it out"
        )
    divides("rollout.tp", rollout_tp, "the ranks", world_size)
