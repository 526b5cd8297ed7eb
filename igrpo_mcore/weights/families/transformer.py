"""What Llama, Qwen2 and Qwen3 share: a block is HybridModel layers 2i (attention) and 2i + 1 (MLP)."""

import re
from typing import Any

from igrpo_mcore.weights.rules import Rule, gate_up, qkv, replicated, row, vocabulary
from igrpo_mcore.weights.table import EMBEDDING, HF_HEAD, OUTPUT, Table

IGNORED = (r"rotary_emb\.inv_freq$",)


def head_dim_of(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def attention(config: Any, *, bias: bool = False, qk_norm: bool = False) -> list[Rule]:
    """Layer ``*``: input norm, QKV (with bias: Qwen2), per-head norms (Qwen3), output projection."""
    hidden, head_dim = config.hidden_size, head_dim_of(config)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    q, k, v = (f"self_attn.{x}_proj" for x in "qkv")
    fused = "self_attention.linear_qkv"
    weights = (q + ".weight", k + ".weight", v + ".weight")
    rules = [
        replicated("input_layernorm.weight", "input_layernorm.weight", (hidden,)),
        qkv(fused + ".weight", weights, heads, kv_heads, head_dim, (hidden,)),
    ]
    if bias:
        biases = (q + ".bias", k + ".bias", v + ".bias")
        rules.append(qkv(fused + ".bias", biases, heads, kv_heads, head_dim, ()))
    if qk_norm:
        for x in "qk":
            norm = f"self_attention.{x}_layernorm.weight"
            rules.append(replicated(norm, f"self_attn.{x}_norm.weight", (head_dim,)))
    projection = (hidden, heads * head_dim)
    rules.append(row("self_attention.linear_proj.weight", "self_attn.o_proj.weight", projection))
    return rules


def swiglu(config: Any) -> list[Rule]:
    """Layer ``-``: pre-MLP norm, gate and up fused, down."""
    hidden, ffn = config.hidden_size, config.intermediate_size
    return [
        replicated("pre_mlp_layernorm.weight", "post_attention_layernorm.weight", (hidden,)),
        gate_up("mlp.linear_fc1.weight", "mlp.gate_proj.weight", "mlp.up_proj.weight", (ffn, hidden)),
        row("mlp.linear_fc2.weight", "mlp.down_proj.weight", (hidden, ffn)),
    ]


def with_ends(
    config: Any, layers: list[Rule], embedding: str, norm: str, ignored: tuple[str, ...] = IGNORED
) -> Table:
    """Embedding before, final norm and (tied or own) head after the layers."""
    shape = (config.vocab_size, config.hidden_size)
    tied = bool(config.tie_word_embeddings)
    return Table(
        (
            vocabulary(EMBEDDING, embedding, shape),
            *layers,
            replicated("decoder.final_norm.weight", norm, (config.hidden_size,)),
            vocabulary(OUTPUT, embedding if tied else HF_HEAD, shape),
        ),
        tied,
        (*ignored, rf"^{re.escape(HF_HEAD)}$") if tied else ignored,
    )


def transformer(config: Any, attention_rules: list[Rule], mlp_rules: list[list[Rule]]) -> Table:
    """All blocks: one attention table, one MLP table a block."""
    layers: list[Rule] = []
    for i, mlp in enumerate(mlp_rules):
        block = f"model.layers.{i}."
        layers += [rule.under(f"decoder.layers.{2 * i}.", block) for rule in attention_rules]
        layers += [rule.under(f"decoder.layers.{2 * i + 1}.", block) for rule in mlp]
    return with_ends(config, layers, "model.embed_tokens.weight", "model.norm.weight")
