"""Where a model's config lies, and how its architecture is divided over the ranks of a layout."""

from collections.abc import Sequence
from pathlib import Path

from igrpo_mcore.config.schema import LoRAConfig, ParallelConfig
from igrpo_mcore.errors import UserError, one_line
from igrpo_mcore.families.architecture import Architecture
from igrpo_mcore.hub import is_remote
from igrpo_mcore.weights.rules import VLLM_VOCABULARY_MULTIPLE


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
        return AutoConfig.from_pretrained(path, trust_remote_code=False)  # None would ask at a terminal
    except StrictDataclassError as error:
        reason, mend = " ".join(str(error).split()), "mend it or fetch the checkpoint again"
        raise UserError(f"{path}: config.json cannot be used ({reason}); {mend}") from error
    except (OSError, ValueError) as error:
        where = "folder" if Path(path).exists() else "folder or hub id"
        small = f"`igrpo tiny --family qwen3 --out {path}`"
        mend = f"give a folder with config.json, or make a small one with {small}"
        if is_remote(str(path)) and "/" in str(path):
            mend = "correct the id, log in to the hub if it is gated, or give a folder with config.json"
        raise UserError(
            f"model.path={path!r} is no readable Hugging Face {where} ({one_line(error)}); {mend}"
        ) from error


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


def check_window(architecture: Architecture, longest: int) -> None:
    """Refuse a sliding window that would matter: the policy's attention sees every token before.

    Raises:
        UserError: ``longest``, the tokens of the longest sequence, is more than the window.
    """
    if architecture.window is not None and longest > architecture.window:
        raise UserError(
            f"the checkpoint's attention has a sliding_window of {architecture.window} tokens, which is not "
            f"supported for sequences of up to {longest}; lower rollout.max_prompt_tokens or "
            "rollout.max_completion_tokens, or use a checkpoint without a window"
        )


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


def check_targets(names: Sequence[str], options: LoRAConfig) -> None:
    """Raises ``UserError`` for a target that none of a model's tensors has."""
    for target in options.targets:
        if not any(LoRAConfig(targets=[target]).adapts(name) for name in names):
            linear = sorted({name.split(".")[-2] for name in names if name.endswith("_proj.weight")})
            raise UserError(
                f"lora.targets: no tensor of the model is called {target}; it has {', '.join(linear)}"
            )
