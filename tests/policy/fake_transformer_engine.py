"""A stand-in for Transformer Engine: its modules' signatures (``te_signatures``) around PyTorch arithmetic.

``install()`` before Megatron-Core is imported; its own TE wrappers are then built over these classes. One
tensor-parallel rank.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.policy.te_signatures import TABLE, signature

PADDING_CAUSAL = "padding_causal"
BASES = ("LayerNorm", "LayerNormLinear", "GroupedLinear")  # of wrappers that our layers leave alone


class InKernel:
    """Whether a stand-in for a kernel is running: what it asks of the device says nothing of ours."""

    depth = 0

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[None]:
        cls.depth += 1
        try:
            yield
        finally:
            cls.depth -= 1


def called(name: str, args: tuple, kwargs: dict) -> dict:
    """The arguments by name; raises TypeError where Transformer Engine would."""
    bound = signature(name).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


class FakeModule(nn.Module):
    def get_extra_state(self) -> Tensor:  # without FP8, as TransformerEngineBaseModule's
        return torch.empty(0, dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        assert state is None or state.numel() == 0


class Linear(FakeModule):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__()
        given = called("Linear.__init__", args, kwargs)
        assert given["tp_size"] == 1
        assert given["device"] is not None, "TE's default is the GPU"
        place = {"device": given["device"], "dtype": given["params_dtype"]}
        self.parallel_mode, self.return_bias = given["parallel_mode"], given["return_bias"]
        self.weight = nn.Parameter(torch.empty(given["out_features"], given["in_features"], **place))
        if given["bias"]:
            self.bias = nn.Parameter(torch.empty(given["out_features"], **place))
        else:
            self.bias = torch.empty(0, **place)
        given["init_method"](self.weight)

    def forward(self, *args, **kwargs):
        given = called("Linear.forward", args, kwargs)
        bias = self.bias if self.bias.numel() else None
        if self.return_bias:
            return F.linear(given["inp"], self.weight), self.bias
        return F.linear(given["inp"], self.weight, bias)


class RMSNorm(FakeModule):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__()
        given = called("RMSNorm.__init__", args, kwargs)
        place = called("ops.RMSNorm.__init__", (given["normalized_shape"],), given.get("others", {}))
        assert place["device"] is not None
        dtype = given["params_dtype"]
        self.weight = nn.Parameter(torch.ones(given["normalized_shape"], dtype=dtype, device=place["device"]))
        self.weight.sequence_parallel = given["sequence_parallel"]  # type: ignore[attr-defined]
        self.eps = given["eps"]

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class DotProductAttention(nn.Module):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__()
        given = called("DotProductAttention.__init__", args, kwargs)
        self.scale = given["softmax_scale"]
        self.layer_number, self.heads, self.groups = (
            given[name] for name in ("layer_number", "num_attention_heads", "num_gqa_groups")
        )

    def forward(self, *args, **kwargs) -> Tensor:
        given = called("DotProductAttention.forward", args, kwargs)
        q, k, v = (given[f"{name}_layer"] for name in ("query", "key", "value"))
        assert (given["qkv_format"], given["attn_mask_type"]) == ("thd", PADDING_CAUSAL)
        assert (q.shape[1], k.shape[1], v.shape[1]) == (self.heads, self.groups, self.groups)
        with InKernel.running():
            assert given["cu_seqlens_q"].dtype is torch.int32
            boundaries = given["cu_seqlens_q"].tolist()
            lengths = [b - a for a, b in itertools.pairwise(boundaries)]
            assert boundaries == given["cu_seqlens_kv"].tolist()
            assert max(lengths) == given["max_seqlen_q"] == given["max_seqlen_kv"]
            assert sum(lengths) == len(q)
            parts = [
                F.scaled_dot_product_attention(
                    *(x.transpose(0, 1)[None] for x in part),
                    is_causal=True,
                    enable_gqa=True,
                    scale=self.scale,
                )[0].transpose(0, 1)
                for part in zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True)
            ]
            return torch.cat(parts).flatten(1)


def apply_rotary_pos_emb(*args, **kwargs) -> Tensor:
    given = called("apply_rotary_pos_emb", args, kwargs)
    t, freqs = given["t"], given["freqs"]
    assert given["fused"]
    assert (given["tensor_format"], given["cp_size"], given["interleaved"]) == ("thd", 1, False)
    assert freqs.dtype is torch.float32
    with InKernel.running():
        lengths = given["cu_seqlens"].diff().tolist()
        assert max(lengths) <= len(freqs)
        angles = torch.cat([freqs[:length, 0] for length in lengths])
        width = freqs.shape[-1]
        turned, rest = t[..., :width].float(), t[..., width:]
        first, second = turned.chunk(2, -1)
        turned = turned * angles.cos() + torch.cat([-second, first], -1) * angles.sin()
        return torch.cat([turned.to(t.dtype), rest], -1)


class FP8GlobalStateManager:
    @staticmethod
    def is_fp8_enabled() -> bool:
        return False


def install() -> None:
    """Put the package where ``import transformer_engine`` finds it; what is left out does not import."""
    contents = {
        "": {"__version__": json.loads(TABLE.read_text())["version"]},
        ".common": {},
        ".common.recipe": {"DelayedScaling": type("DelayedScaling", (), {})},
        ".pytorch": {
            "Linear": Linear,
            "RMSNorm": RMSNorm,
            "DotProductAttention": DotProductAttention,
            **{
                name: type(name, (nn.Module,), {})
                for name in ("LayerNorm", "LayerNormLinear", "GroupedLinear")
            },
        },
        ".pytorch.fp8": {
            "FP8GlobalStateManager": FP8GlobalStateManager,
            "fp8_autocast": nullcontext,
            "fp8_model_init": nullcontext,
        },
        ".pytorch.distributed": {
            "CudaRNGStatesTracker": type("CudaRNGStatesTracker", (), {}),
            "activation_recompute_forward": nullcontext,
        },
        ".pytorch.tensor": {"QuantizedTensor": type("QuantizedTensor", (torch.Tensor,), {})},
        ".pytorch.router": dict.fromkeys(
            ("fused_compute_score_for_moe_aux_loss", "fused_moe_aux_loss", "fused_topk_with_score_function")
        ),
        ".pytorch.attention": {},
        ".pytorch.attention.rope": {"apply_rotary_pos_emb": apply_rotary_pos_emb},
    }
    for name, values in contents.items():
        module = ModuleType("transformer_engine" + name)
        module.__path__ = []  # a package without files
        vars(module).update(values)
        sys.modules[module.__name__] = module
        parent, _, child = module.__name__.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
