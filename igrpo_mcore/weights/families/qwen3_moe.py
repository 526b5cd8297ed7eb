"""Qwen3-MoE: the MLP of a block is a router and experts (``E``), except where the config says dense."""

from typing import Any

from igrpo_mcore.weights.families.transformer import attention, swiglu, transformer
from igrpo_mcore.weights.rules import Rule, gate_up, replicated, row
from igrpo_mcore.weights.table import Table


def experts(config: Any) -> list[Rule]:
    """Layer ``E``: pre-MLP norm, router, SwiGLU experts."""
    hidden, ffn = config.hidden_size, config.moe_intermediate_size
    rules = [
        replicated("pre_mlp_layernorm.weight", "post_attention_layernorm.weight", (hidden,)),
        replicated("mlp.router.weight", "mlp.gate.weight", (config.num_experts, hidden)),
    ]
    for e in range(config.num_experts):
        here, there = f"mlp.experts.local_experts.{e}.", f"mlp.experts.{e}."
        gate, up = there + "gate_proj.weight", there + "up_proj.weight"
        rules += [
            gate_up(here + "linear_fc1.weight", gate, up, (ffn, hidden), expert=e),
            row(here + "linear_fc2.weight", there + "down_proj.weight", (hidden, ffn), expert=e),
        ]
    return rules


def table(config: Any) -> Table:
    sparse, dense = experts(config), swiglu(config)
    every = config.decoder_sparse_step
    mlps = [
        sparse if i not in config.mlp_only_layers and (i + 1) % every == 0 else dense
        for i in range(config.num_hidden_layers)
    ]
    return transformer(config, attention(config, qk_norm=True), mlps)
