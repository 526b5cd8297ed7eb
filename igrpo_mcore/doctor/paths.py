"""Whose code computes what on this machine, by the functions that decide it in a run."""

from collections.abc import Callable

import torch

from igrpo_mcore import device
from igrpo_mcore.config.schema import Config
from igrpo_mcore.doctor.finding import Finding, State, fault, note
from igrpo_mcore.errors import UserError, one_line
from igrpo_mcore.families.architecture import Architecture


def paths(config: Config, architecture: Architecture | None) -> list[Finding]:
    """Layers, fusions, optimizer, loss kernels and the engine's attention; of any model where there is no
    architecture, so that what only Mamba layers lack is a note."""
    if architecture is not None:
        found = [layers(architecture.mamba is not None)]
        found += [fusions(config, architecture), engine_attention(config, architecture)]
    else:
        dense = layers(False)
        found = [layers(True, missing=note) if dense.state == State.ok else dense]
    return [*found, optimizer(), loss_kernels()]


def layers(mamba: bool, missing: Callable[[str, str, str], Finding] = fault) -> Finding:
    from igrpo_mcore.policy.layer_spec import layer_paths

    try:
        chosen = layer_paths(mamba=mamba)
    except UserError as error:
        reason, _, mend = str(error).rpartition("; ")
        return missing("layers", reason, mend)
    return Finding("layers", ", ".join(f"{kind}: {whose}" for kind, whose in chosen.items()))


def fusions(config: Config, architecture: Architecture) -> Finding:
    from igrpo_mcore.policy.model import transformer_config

    try:
        built = transformer_config(architecture, config.parallel, config.model)
    except ValueError:
        return note("fused", "not known", "mend the layout first, see the recipe's checks")
    named = {"SwiGLU": built.bias_activation_fusion, "rotary embedding": built.apply_rope_fusion}
    named["weight gradient"] = built.gradient_accumulation_fusion
    return Finding("fused", ", ".join(name for name, fused in named.items() if fused) or "nothing")


def optimizer() -> Finding:
    """AdamW as Megatron-Core will find it."""
    with device.megatron_on_cpu():
        from megatron.core import optimizer as megatron_optimizer

        chosen = megatron_optimizer.Adam
    told = f"{chosen.__module__}.{chosen.__qualname__}"
    if device.has_cuda() and megatron_optimizer.USING_PYTORCH_OPTIMIZER:
        return note("optimizer", told, "install transformer-engine[pytorch] for its fused AdamW")
    return Finding("optimizer", told)


def loss_kernels() -> Finding:
    from igrpo_kernels.path import path_of

    where = "cuda" if device.has_cuda() else "cpu"
    try:
        return Finding("loss kernels", path_of(torch.empty(0, dtype=torch.float32, device=where)))
    except (RuntimeError, ValueError) as error:
        return fault("loss kernels", one_line(error), "unset IGRPO_KERNELS, or set it to reference")


def engine_attention(config: Config, architecture: Architecture) -> Finding:
    """What vLLM's platform takes for this model's heads."""
    try:
        from vllm.platforms import current_platform
        from vllm.v1.attention.selector import AttentionSelectorConfig

        selector = AttentionSelectorConfig(
            head_size=architecture.head_dim,
            dtype=getattr(torch, config.model.dtype),
            kv_cache_dtype=None,
            block_size=None,
        )
        chosen = current_platform.get_attn_backend_cls(None, selector, architecture.heads)
    except Exception as error:  # a broken build may raise anything
        return fault("engine's attention", one_line(error), "install the vLLM of the extra, and its torch")
    return Finding("engine's attention", chosen.rpartition(".")[2])
