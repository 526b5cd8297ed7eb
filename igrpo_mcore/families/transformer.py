"""What the plain transformers share: a block is HybridModel layers 2i (attention) and 2i + 1 (MLP)."""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from igrpo_mcore.errors import UserError
from igrpo_mcore.families.architecture import Architecture, Family
from igrpo_mcore.weights.rules import Rule, gate_up, qkv, replicated, row, vocabulary
from igrpo_mcore.weights.table import EMBEDDING, HF_HEAD, OUTPUT, Table


def transformer(
    accepts: Mapping[str, tuple] | None = None, *, qkv_bias: bool = False, qk_norm: bool = False
) -> Family:
    """A family of plain transformers: SwiGLU, RMSNorm before attention and MLP, rotary embeddings."""
    without_bias = ("mlp_bias",) if qkv_bias else ("mlp_bias", "attention_bias")
    return Family(
        accepts={"hidden_act": ("silu",), **dict.fromkeys(without_bias, (False, None)), **(accepts or {})},
        fields=partial(_fields, qkv_bias=qkv_bias, qk_norm=qk_norm),
        table=_table,
        tiny=dict(num_hidden_layers=4, intermediate_size=384),
    )


def _fields(config: Any, **fixed: bool) -> dict[str, Any]:
    theta, scaling = _rope(config)
    return dict(
        pattern="*-" * config.num_hidden_layers,
        norm_eps=config.rms_norm_eps,
        rope_theta=theta,
        rope_scaling=scaling,
        **fixed,
    )


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


def _table(a: Architecture) -> Table:
    layers: list[Rule] = []
    for i in range(a.layers // 2):
        block = f"model.layers.{i}."
        layers += under(f"decoder.layers.{2 * i}.", block, _attention(a))
        layers += under(f"decoder.layers.{2 * i + 1}.", block, _swiglu(a))
    return with_ends(a, layers, "model.embed_tokens.weight", "model.norm.weight", (r"rotary_emb\.inv_freq$",))


def _attention(a: Architecture) -> list[Rule]:
    """Layer ``*``: input norm, QKV (with bias: Qwen2), per-head norms (Qwen3), output projection."""

    def fused(kind: str, inner: tuple[int, ...]) -> Rule:
        names = [f"self_attn.{x}_proj.{kind}" for x in "qkv"]
        return qkv(f"self_attention.linear_qkv.{kind}", names, a.heads, a.kv_heads, a.head_dim, inner)

    rules = [
        replicated("input_layernorm.weight", "input_layernorm.weight", (a.hidden,)),
        fused("weight", (a.hidden,)),
        *([fused("bias", ())] if a.qkv_bias else []),
    ]
    for x in "qk" if a.qk_norm else "":
        norm = f"self_attention.{x}_layernorm.weight"
        rules.append(replicated(norm, f"self_attn.{x}_norm.weight", (a.head_dim,)))
    projection = (a.hidden, a.heads * a.head_dim)
    return [*rules, row("self_attention.linear_proj.weight", "self_attn.o_proj.weight", projection)]


def _swiglu(a: Architecture) -> list[Rule]:
    """Layer ``-``: pre-MLP norm, gate and up fused, down."""
    up = (a.ffn_hidden, a.hidden)
    return [
        replicated("pre_mlp_layernorm.weight", "post_attention_layernorm.weight", (a.hidden,)),
        gate_up("mlp.linear_fc1.weight", "mlp.gate_proj.weight", "mlp.up_proj.weight", up),
        row("mlp.linear_fc2.weight", "mlp.down_proj.weight", (a.hidden, a.ffn_hidden)),
    ]


def under(layer: str, hf_layer: str, rules: Iterable[Rule]) -> list[Rule]:
    """A layer's rules with full names."""
    return [rule.under(layer, hf_layer) for rule in rules]


def with_ends(
    a: Architecture, layers: list[Rule], embedding: str, norm: str, ignored: tuple[str, ...]
) -> Table:
    """Embedding before, final norm and (tied or own) head after the layers."""
    shape = (a.vocab_size, a.hidden)
    tied = a.tied_embeddings
    return Table(
        (
            vocabulary(EMBEDDING, embedding, shape),
            *layers,
            replicated("decoder.final_norm.weight", norm, (a.hidden,)),
            vocabulary(OUTPUT, embedding if tied else HF_HEAD, shape),
        ),
        tied,
        (*ignored, rf"^{re.escape(HF_HEAD)}$") if tied else ignored,
    )
