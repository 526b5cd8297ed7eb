"""Nemotron-H: Mamba-2 ``M``, attention ``*`` and MLP ``-`` layers, one to one. Expert layers are refused."""

from typing import Any

from igrpo_mcore.errors import UserError
from igrpo_mcore.families.architecture import Architecture, Family, Mamba
from igrpo_mcore.families.transformer import under, with_ends
from igrpo_mcore.weights.rules import Block, Rule, column, fused, qkv, replicated, row
from igrpo_mcore.weights.table import Table

CONV_KERNEL = 4

# transformers 5 calls the Mamba blocks linear_attention and the attention blocks full_attention
_SYMBOLS = {"mamba": "M", "linear_attention": "M", "attention": "*", "full_attention": "*", "mlp": "-"}


def _fields(config: Any) -> dict[str, Any]:
    unknown = sorted(set(config.layers_block_type) - set(_SYMBOLS))
    if unknown:
        raise UserError(
            f"{type(config).__name__} with blocks of type {unknown} is not supported; use a checkpoint of "
            "Mamba, attention and MLP blocks only"
        )
    return dict(
        pattern="".join(_SYMBOLS[block] for block in config.layers_block_type),
        norm_eps=config.layer_norm_epsilon,
        gated_mlp=False,
        mamba=Mamba(
            heads=config.mamba_num_heads,
            head_dim=config.mamba_head_dim,
            state_dim=config.ssm_state_size,
            groups=config.n_groups,
        ),
    )


def _mamba(a: Architecture) -> list[Rule]:
    """Layer ``M``: in_proj packs z, x, B, C, dt and conv1d x, B, C; each block is divided on its own."""
    assert a.mamba is not None
    heads, groups = a.mamba.heads, a.mamba.groups
    inner = heads * a.mamba.head_dim
    x, states = Block(inner, heads), Block(groups * a.mamba.state_dim, groups)
    conv = (x, states, states)
    return [
        replicated("norm.weight", "norm.weight", (a.hidden,)),
        fused("mixer.in_proj.weight", "mixer.in_proj.weight", (x, *conv, Block(heads, heads)), (a.hidden,)),
        fused("mixer.conv1d_weight", "mixer.conv1d.weight", conv, (1, CONV_KERNEL)),
        fused("mixer.conv1d_bias", "mixer.conv1d.bias", conv, ()),
        column("mixer.dt_bias", "mixer.dt_bias", (heads,), keep_dtype=True),
        column("mixer.A_log", "mixer.A_log", (heads,), keep_dtype=True),
        column("mixer.D", "mixer.D", (heads,), keep_dtype=True),
        column("mixer.norm.weight", "mixer.norm.weight", (inner,)),
        row("mixer.out_proj.weight", "mixer.out_proj.weight", (a.hidden, inner)),
    ]


def _attention(a: Architecture) -> list[Rule]:
    """Layer ``*``: no rotary embedding, no bias."""
    names = [f"mixer.{x}_proj.weight" for x in "qkv"]
    return [
        replicated("input_layernorm.weight", "norm.weight", (a.hidden,)),
        qkv("self_attention.linear_qkv.weight", names, a.heads, a.kv_heads, a.head_dim, (a.hidden,)),
        row("self_attention.linear_proj.weight", "mixer.o_proj.weight", (a.hidden, a.heads * a.head_dim)),
    ]


def _mlp(a: Architecture) -> list[Rule]:
    """Layer ``-``: squared ReLU, no gate."""
    return [
        replicated("pre_mlp_layernorm.weight", "norm.weight", (a.hidden,)),
        column("mlp.linear_fc1.weight", "mixer.up_proj.weight", (a.ffn_hidden, a.hidden)),
        row("mlp.linear_fc2.weight", "mixer.down_proj.weight", (a.hidden, a.ffn_hidden)),
    ]


def _table(a: Architecture) -> Table:
    rules = {"M": _mamba, "*": _attention, "-": _mlp}
    layers: list[Rule] = []
    for i, symbol in enumerate(a.pattern):
        layers += under(f"decoder.layers.{i}.", f"backbone.layers.{i}.", rules[symbol](a))
    return with_ends(a, layers, "backbone.embeddings.weight", "backbone.norm_f.weight", (r"^mtp\.",))


FAMILY = Family(
    accepts={
        "tie_word_embeddings": (False,),  # transformers and vLLM ignore it
        "mlp_hidden_act": ("relu2",),
        "mamba_hidden_act": ("silu",),
        "mlp_bias": (False, None),
        "attention_bias": (False, None),
        "use_bias": (False, None),
        "use_conv_bias": (True,),
        "conv_kernel": (CONV_KERNEL,),
        "time_step_limit": ((0.0, float("inf")), [0.0, float("inf")], None),
    },
    fields=_fields,
    table=_table,
    tiny=dict(
        # M-*-M-*-: two pipeline stages of the same four blocks
        layers_block_type=["mamba", "mlp", "attention", "mlp"] * 2,
        intermediate_size=384,
        mamba_num_heads=8,
        mamba_head_dim=32,
        ssm_state_size=16,
        n_groups=2,
        conv_kernel=CONV_KERNEL,
        use_mamba_kernels=False,
    ),
)
