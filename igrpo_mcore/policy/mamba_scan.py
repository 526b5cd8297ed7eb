"""The Mamba-2 scan (SSD) and the mixer in plain PyTorch, for machines without mamba_ssm."""

from unittest.mock import patch

import torch
import torch.nn.functional as F
from megatron.core.ssm import mamba_mixer
from megatron.core.ssm.mamba_mixer import MambaMixer
from megatron.core.transformer.utils import (
    ensure_metadata_has_dp_cp_group,
    make_sharded_tensors_for_checkpoint,
)
from torch import Tensor, nn

from igrpo_mcore.policy.packing import PaddedView


def ssd_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int, D: Tensor, z: Tensor
) -> Tensor:
    """Chunked state-space dual scan, then skip connection and gate (arXiv 2405.21060, listing 1).

    Args:
        x: [b, l, h, p] inputs of h heads of width p.
        dt: [b, l, h] step sizes after softplus.
        A: [h], negative.
        B, C: [b, l, g, n], groups of h / g heads share them.
        chunk: tokens handled by one dense block.
        D: [h] skip weights.
        z: [b, l, h, p] gate.

    Returns:
        [b, l, h, p] in x's dtype; computed in fp32.
    """
    batch, length, heads, width = x.shape
    groups, state = B.shape[2:]
    chunk = min(chunk, length)
    tail = (-length) % chunk
    # dt = 0 in the tail: no decay, no input
    xf, dtf, Bf, Cf = (F.pad(t.float(), (0, 0) * (t.dim() - 2) + (0, tail)) for t in (x, dt, B, C))
    chunks, shared = xf.shape[1] // chunk, heads // groups
    X = (xf * dtf[..., None]).reshape(batch, chunks, chunk, groups, shared, width)
    decay = (dtf * A).reshape(batch, chunks, chunk, groups, shared).permute(0, 3, 4, 1, 2).cumsum(-1)
    B_c, C_c = (
        Bf.reshape(batch, chunks, chunk, groups, state),
        Cf.reshape(batch, chunks, chunk, groups, state),
    )
    causal = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).tril()
    L = (decay[..., :, None] - decay[..., None, :]).masked_fill(~causal, float("-inf")).exp()
    within = torch.einsum("bkign,bkjgn->bgkij", C_c, B_c)[:, :, None] * L
    y = torch.einsum("bgrkij,bkjgrp->bkigrp", within, X)
    to_end = (decay[..., -1:] - decay).exp().permute(0, 3, 4, 1, 2)[..., None]
    states = torch.einsum("bkjgn,bkjgrp->bkgrpn", B_c, X * to_end)
    if chunks > 1:
        carried, before, total = torch.zeros_like(states[:, 0]), [], decay[..., -1].exp()
        for i in range(chunks):
            before.append(carried)
            carried = carried * total[..., i, None, None] + states[:, i]
        from_start = decay.exp().permute(0, 3, 4, 1, 2)[..., None]
        y = y + torch.einsum("bkign,bkgrpn->bkigrp", C_c, torch.stack(before, 1)) * from_start
    y = y.reshape(batch, chunks * chunk, heads, width)[:, :length]
    y = (y + x.float() * D[:, None]) * F.silu(z.float())
    return y.to(x.dtype)


class GroupRMSNorm(nn.Module):
    """RMSNorm over each Mamba group's share of the inner width (mamba_ssm's RMSNormGated, gate outside)."""

    def __init__(self, hidden_size: int, eps: float, group_size: int, dtype: torch.dtype, tp_group) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size, dtype=dtype))
        self.weight.tensor_model_parallel, self.weight.partition_dim = True, 0  # type: ignore[attr-defined]
        self.eps, self.group_size, self.tp_group = eps, group_size, tp_group

    def forward(self, x: Tensor) -> Tensor:
        groups = x.float().unflatten(-1, (-1, self.group_size))
        normed = groups * torch.rsqrt(groups.square().mean(-1, keepdim=True) + self.eps)
        return (normed.flatten(-2) * self.weight.float()).to(x.dtype)

    def sharded_state_dict(self, prefix="", sharded_offsets=(), metadata=None):
        """Megatron's dist_checkpointing entry: sharded over TP on dimension 0."""
        metadata = ensure_metadata_has_dp_cp_group(metadata)
        return make_sharded_tensors_for_checkpoint(
            self.state_dict(prefix="", keep_vars=True),
            prefix,
            {"weight": 0},
            sharded_offsets,
            tp_group=self.tp_group,
            dp_cp_group=metadata["dp_cp_group"],
        )


class TorchMambaMixer(MambaMixer):
    """Megatron's MambaMixer (parameters, TP/SP, checkpoint sharding); scan, conv and norm in PyTorch."""

    def __init__(self, config, submodules, d_model, **kwargs) -> None:
        # the flag is the only guard in __init__; rmsnorm=False avoids mamba_ssm's norm, ours follows
        with patch.object(mamba_mixer, "HAVE_MAMBA_SSM", True):
            super().__init__(config, submodules, d_model, rmsnorm=False, **kwargs)
        self.rmsnorm = True
        self.norm = GroupRMSNorm(
            self.d_inner_local_tp,
            config.layernorm_epsilon,
            self.d_inner_local_tp // self.ngroups_local_tp,
            config.params_dtype,
            self.pg_collection.tp,
        )

    def _ssm_training(self, zxBCdt: Tensor, packed_seq_params=None) -> Tensor:
        total, batch, _ = zxBCdt.shape
        heads, width, groups = self.cp.nheads_local_tpcp, self.headdim, self.cp.ngroups_local_tpcp
        u = zxBCdt.transpose(0, 1)
        view = None
        if packed_seq_params is not None:
            assert batch == 1
            view = PaddedView(packed_seq_params.cu_seqlens_q, total)
            u = view.pad(u[0])
        b, length = u.shape[:2]
        conv_weight = self.cp.get_conv1d_weight()
        z, xBC, dt = torch.split(u, [heads * width, conv_weight.shape[0], heads], dim=-1)
        xBC = F.pad(xBC.transpose(1, 2), (self.d_conv - 1, 0))
        xBC = F.conv1d(xBC, conv_weight, self.cp.get_conv1d_bias(), groups=conv_weight.shape[0])
        x, B, C = torch.split(
            F.silu(xBC).transpose(1, 2), [heads * width, groups * self.d_state, groups * self.d_state], dim=-1
        )
        y = ssd_scan(
            x.reshape(b, length, heads, width),
            F.softplus(dt.float() + self.cp.get_dt_bias().float()),
            -torch.exp(self.cp.get_A_log().float()),
            B.reshape(b, length, groups, self.d_state),
            C.reshape(b, length, groups, self.d_state),
            self.chunk_size,
            self.cp.get_D().float(),
            z.reshape(b, length, heads, width),
        ).flatten(2)
        y = view.unpad(y)[None] if view is not None else y
        return self.norm(self.cp.post_conv_ssm(y.transpose(0, 1).contiguous(), packed_seq_params))
