"""Which modules a hybrid layer is made of: Transformer Engine's where installed, PyTorch's elsewhere.

Norms are never fused into the following linear layer, so that parameter names are the same on both
paths and one weight table a family serves both.
"""

import importlib
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.hybrid.hybrid_block import HybridStack, HybridStackSubmodules
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.ssm import mamba_mixer
from megatron.core.ssm.mamba_layer import MambaLayer, MambaLayerSubmodules
from megatron.core.ssm.mamba_mixer import MambaMixer, MambaMixerSubmodules
from megatron.core.ssm.mlp_layer import MLPLayer
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from torch import Tensor, nn

from igrpo_mcore import device
from igrpo_mcore.errors import UserError, one_line
from igrpo_mcore.policy.mamba_scan import TorchMambaMixer
from igrpo_mcore.policy.packing import PaddedView, SharedPromptView

try:
    from megatron.core.extensions.transformer_engine import HAVE_TE
except ImportError:
    HAVE_TE = False


@dataclass
class RowParams(PackedSeqParams):
    """Megatron's description of a packed row, and ours of the prompts that it shares."""

    view: SharedPromptView | None = None


class TorchRMSNorm(nn.RMSNorm):
    """torch's RMSNorm; marked sequence-parallel so that its gradient is summed over TP under SP."""

    def __init__(self, config, hidden_size: int, eps: float = 1e-5, **_) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]


class TorchAttention(MegatronModule):
    """Causal scaled-dot-product attention with grouped queries, on packed rows [T, heads, width]."""

    def __init__(
        self,
        config,
        layer_number,
        attn_mask_type,
        attention_type,
        attention_dropout=None,
        softmax_scale=None,
        **_,
    ) -> None:
        super().__init__(config=config)
        assert attn_mask_type == AttnMaskType.causal
        self.scale = softmax_scale

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask=None,
        attn_mask_type=None,
        attention_bias=None,
        packed_seq_params=None,
        **_,
    ) -> Tensor:
        """[T, heads, width] packed, or [T, B, heads, width] -> the same with heads x width flattened."""
        if packed_seq_params is None:
            q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True, scale=self.scale)
            return out.permute(2, 0, 1, 3).flatten(2)
        view = packed_seq_params.view or PaddedView(packed_seq_params.cu_seqlens_q, query.shape[0])
        q, k, v = (view.pad(x).transpose(1, 2) for x in (query, key, value))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True, scale=self.scale)
        return view.unpad(out.transpose(1, 2)).flatten(1)


class LocalHybridStack(HybridStack):
    """HybridStack, whose final norm is hard-coded to Transformer Engine's, with ours."""

    def __init__(self, config, submodules, post_layer_norm: bool = True, **kwargs) -> None:
        super().__init__(config, submodules, post_layer_norm=False, **kwargs)
        self.post_layer_norm = post_layer_norm
        if self.post_process and post_layer_norm:
            self.final_norm = TorchRMSNorm(config, config.hidden_size, eps=config.layernorm_epsilon)


def has_transformer_engine() -> bool:
    """Whether layers are Transformer Engine's, whose attention takes no row with shared prompts."""
    return HAVE_TE and device.has_cuda()


def layer_paths(*, mamba: bool) -> dict[str, str]:
    """Kind of layer -> whose code computes it on this machine; ``mamba`` for models with Mamba layers.

    Raises:
        UserError: there is CUDA, and a package that these layers need there does not import. Megatron-Core
            itself passes over that, and layers would run many times slower without a word.
    """
    on_gpu = device.has_cuda()
    if on_gpu and not HAVE_TE:
        raise _missing("transformer_engine.pytorch.fp8", "transformer-engine[pytorch]")
    paths = dict.fromkeys(("attention", "linear", "norm"), "Transformer Engine" if on_gpu else "PyTorch")
    if mamba:
        if on_gpu and not mamba_mixer.HAVE_MAMBA_SSM:
            raise _missing("mamba_ssm.ops.triton.ssd_combined", "mamba-ssm")
        if on_gpu and mamba_mixer.causal_conv1d_fn is None:
            raise _missing("causal_conv1d.causal_conv1d_varlen", "causal-conv1d>=1.4")
        paths["mamba"] = "mamba_ssm and causal_conv1d" if on_gpu else "PyTorch"
    return paths


def _missing(module: str, requirement: str) -> UserError:
    """``module`` is what Megatron-Core 0.19 imports of the package."""
    try:
        importlib.import_module(module)
        reason = "Megatron-Core could not use it"
    except Exception as error:  # a broken build may raise anything
        reason = f"{type(error).__name__}: {one_line(error)}"
    return UserError(
        f"{module.split('.')[0]} does not import on this machine with a GPU ({reason}); install "
        f"{requirement}, built for its CUDA and torch (the gpu extra)"
    )


def hybrid_spec(qk_norm: bool) -> ModuleSpec:
    """The stack of Mamba, attention and MLP layers; ``qk_norm`` adds Qwen3's norms of q and k.

    Call ``layer_paths`` first: what does not import is replaced here without a word.
    """
    stack: type[HybridStack]
    if has_transformer_engine():
        from megatron.core.extensions.transformer_engine import (
            TEColumnParallelLinear,
            TEDotProductAttention,
            TENorm,
            TERowParallelLinear,
        )

        norm, column, row, attention = (
            TENorm,
            TEColumnParallelLinear,
            TERowParallelLinear,
            TEDotProductAttention,
        )
        stack = HybridStack
    else:
        norm, column, row, attention = TorchRMSNorm, ColumnParallelLinear, RowParallelLinear, TorchAttention
        stack = LocalHybridStack
    mixer = MambaMixer if mamba_mixer.HAVE_MAMBA_SSM and device.has_cuda() else TorchMambaMixer
    qk = dict(q_layernorm=norm, k_layernorm=norm) if qk_norm else {}
    return ModuleSpec(
        module=stack,
        submodules=HybridStackSubmodules(
            mamba_layer=ModuleSpec(
                module=MambaLayer,
                submodules=MambaLayerSubmodules(
                    norm=norm,
                    mixer=ModuleSpec(
                        module=mixer, submodules=MambaMixerSubmodules(in_proj=column, out_proj=row)
                    ),
                    mamba_bda=get_bias_dropout_add,
                ),
            ),
            attention_layer=ModuleSpec(
                module=TransformerLayer,
                submodules=TransformerLayerSubmodules(
                    input_layernorm=norm,
                    self_attention=ModuleSpec(
                        module=SelfAttention,
                        params={"attn_mask_type": AttnMaskType.causal},
                        submodules=SelfAttentionSubmodules(
                            linear_qkv=column, core_attention=attention, linear_proj=row, **qk
                        ),
                    ),
                    self_attn_bda=get_bias_dropout_add,
                ),
            ),
            mlp_layer=ModuleSpec(
                module=MLPLayer,
                submodules=TransformerLayerSubmodules(
                    pre_mlp_layernorm=norm,
                    mlp=partial(
                        MLP.as_mlp_submodule,
                        submodules=MLPSubmodules(linear_fc1=column, linear_fc2=row),
                    ),
                    mlp_bda=get_bias_dropout_add,
                ),
            ),
        ),
    )
