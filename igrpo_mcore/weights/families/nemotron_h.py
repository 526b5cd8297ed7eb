"""Nemotron-H and Nemotron 3: Mamba ``M``, attention ``*``, MLP ``-`` and expert ``E`` layers, one to one."""

from typing import Any

from igrpo_mcore.errors import UserError
from igrpo_mcore.weights.families.transformer import with_ends
from igrpo_mcore.weights.rules import Block, Rule, column, fused, qkv, replicated, row
from igrpo_mcore.weights.table import Table


def mamba(config: Any) -> list[Rule]:
    """Layer ``M``: in_proj packs z, x, B, C, dt and conv1d x, B, C; each block is divided on its own."""
    hidden, heads, groups = config.hidden_size, config.mamba_num_heads, config.n_groups
    inner = heads * config.mamba_head_dim
    x, states = Block(inner, heads), Block(groups * config.ssm_state_size, groups)
    conv = (x, states, states)
    return [
        replicated("norm.weight", "norm.weight", (hidden,)),
        fused("mixer.in_proj.weight", "mixer.in_proj.weight", (x, *conv, Block(heads, heads)), (hidden,)),
        fused("mixer.conv1d_weight", "mixer.conv1d.weight", conv, (1, config.conv_kernel)),
        fused("mixer.conv1d_bias", "mixer.conv1d.bias", conv, ()),
        column("mixer.dt_bias", "mixer.dt_bias", (heads,), keep_dtype=True),
        column("mixer.A_log", "mixer.A_log", (heads,), keep_dtype=True),
        column("mixer.D", "mixer.D", (heads,), keep_dtype=True),
        column("mixer.norm.weight", "mixer.norm.weight", (inner,)),
        row("mixer.out_proj.weight", "mixer.out_proj.weight", (hidden, inner)),
    ]


def attention(config: Any) -> list[Rule]:
    """Layer ``*``: no rotary embedding, no bias."""
    hidden, head_dim = config.hidden_size, config.head_dim
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    names = ("mixer.q_proj.weight", "mixer.k_proj.weight", "mixer.v_proj.weight")
    return [
        replicated("input_layernorm.weight", "norm.weight", (hidden,)),
        qkv("self_attention.linear_qkv.weight", names, heads, kv_heads, head_dim, (hidden,)),
        row("self_attention.linear_proj.weight", "mixer.o_proj.weight", (hidden, heads * head_dim)),
    ]


def _squared_relu(here: str, there: str, hidden: int, ffn: int, expert: int | None = None) -> list[Rule]:
    return [
        column(here + "linear_fc1.weight", there + "up_proj.weight", (ffn, hidden), expert),
        row(here + "linear_fc2.weight", there + "down_proj.weight", (hidden, ffn), expert),
    ]


def mlp(config: Any) -> list[Rule]:
    """Layer ``-``: squared ReLU, no gate."""
    norm = replicated("pre_mlp_layernorm.weight", "norm.weight", (config.hidden_size,))
    return [norm, *_squared_relu("mlp.", "mixer.", config.hidden_size, config.intermediate_size)]


def experts(config: Any) -> list[Rule]:
    """Layer ``E``: sigmoid router with a balancing bias, ungated experts (behind a latent
    projection where the config has one) and a shared expert."""
    hidden, ffn, count = config.hidden_size, config.moe_intermediate_size, config.n_routed_experts
    latent = config.moe_latent_size
    rules = [
        replicated("pre_mlp_layernorm.weight", "norm.weight", (hidden,)),
        replicated("mlp.router.weight", "mixer.gate.weight", (count, hidden)),
        replicated("mlp.router.expert_bias", "mixer.gate.e_score_correction_bias", (count,), keep_dtype=True),
    ]
    if latent:
        rules += [
            replicated("mlp.fc1_latent_proj.weight", "mixer.fc1_latent_proj.weight", (latent, hidden)),
            replicated("mlp.fc2_latent_proj.weight", "mixer.fc2_latent_proj.weight", (hidden, latent)),
        ]
    for e in range(count):
        here, there = f"mlp.experts.local_experts.{e}.", f"mixer.experts.{e}."
        rules += _squared_relu(here, there, latent or hidden, ffn, expert=e)
    shared = config.moe_shared_expert_intermediate_size
    return rules + _squared_relu("mlp.shared_experts.", "mixer.shared_experts.", hidden, shared)


_LAYERS = {
    "mamba": mamba,
    "linear_attention": mamba,
    "attention": attention,
    "full_attention": attention,
    "mlp": mlp,
    "moe": experts,
}


def table(config: Any) -> Table:
    """All layers, in the order of the config.

    Raises:
        UserError: tied embeddings, which transformers' and vLLM's Nemotron-H do not implement.
    """
    if config.tie_word_embeddings:
        raise UserError(
            "Nemotron-H with tie_word_embeddings=true is not supported (transformers ignores it); "
            "give a checkpoint with a head of its own and tie_word_embeddings=false"
        )
    layers: list[Rule] = []
    for i, block in enumerate(config.layers_block_type):
        here, there = f"decoder.layers.{i}.", f"backbone.layers.{i}."
        layers += [rule.under(here, there) for rule in _LAYERS[block](config)]
    return with_ends(config, layers, "backbone.embeddings.weight", "backbone.norm_f.weight", (r"^mtp\.",))
