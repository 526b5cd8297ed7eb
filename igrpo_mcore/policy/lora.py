"""LoRA (arXiv 2106.09685) on the merged weights: W = W0 + (alpha / r) B A, B and A trained, W0 as it was.

The policy's parameters are the merged weights at all times, so log-probs, push, export, verification and
checkpoints need not know of adapters, and sampler and trainer compute with the same rounded W. Gradients
follow from that of W by the chain rule, dB = (alpha / r) dW Aᵀ and dA = (alpha / r) Bᵀ dW: those of the usual
form W0 x + (alpha / r) B A x. An adapter belongs to one tensor of the Hugging Face checkpoint, as in PEFT:
query, key and value have their own although Megatron fuses them.

What it saves is the optimizer's memory, not that of gradients: dW is whole on every data-parallel rank.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from igrpo_mcore import device
from igrpo_mcore.config.schema import LoRAConfig
from igrpo_mcore.policy.host_copies import HostCopies
from igrpo_mcore.weights.local import LocalShard
from igrpo_mcore.weights.rules import Segment


@dataclass
class Adapter:
    """The adapter of one tensor [out, in] on this rank, in fp32.

    ``split`` is the dimension of W that tensor-parallel ranks divide: with 0 (column-parallel) ``b``
    [out here, r] is this rank's and ``a`` [r, in] is every rank's, with 1 (row-parallel) the other way round.
    ``index`` are this rank's places along ``split``, ``segments`` the same in ``shard``, the parameter
    ``owner`` with the gradient.
    """

    name: str
    whole: tuple[int, int]
    split: int
    index: Tensor
    shard: LocalShard
    segments: tuple[Segment, ...]
    owner: nn.Parameter
    scale: float
    a: nn.Parameter
    b: nn.Parameter

    @property
    def divided(self) -> nn.Parameter:
        """The factor that tensor-parallel ranks divide."""
        return self.b if self.split == 0 else self.a

    @property
    def replicated(self) -> nn.Parameter:
        """The factor that all of them hold."""
        return self.a if self.split == 0 else self.b

    def weight(self) -> Tensor:
        """W here, a copy [out, in] of this rank's part, in the parameter's type."""
        return torch.cat([self.shard.view(segment) for segment in self.segments], self.split)

    def gradients(self) -> None:
        """Set the factors' gradients from W's; that of the replicated one is this rank's part of a sum."""
        grad = self.owner.main_grad  # type: ignore[attr-defined]
        parts = [grad.narrow(self.split, s.offset, s.run.length) for s in self.segments]
        dw = torch.cat(parts, self.split).float()
        self.b.grad = self.scale * (dw @ self.a.detach().T)
        self.a.grad = self.scale * (self.b.detach().T @ dw)

    def merge(self, base: Tensor) -> None:
        """Write W0 + scale · B A into the parameter."""
        merged = base.to(self.a.device).float() + self.scale * (self.b.detach() @ self.a.detach())
        begin = 0
        for segment in self.segments:
            part = merged.narrow(self.split, begin, segment.run.length)
            self.shard.view(segment).copy_(part)
            begin += segment.run.length


class Adapters:
    """All adapters of this rank, and the base weights on the host.

    ``igrpo_mcore.policy.architecture.check_targets`` says which targets there are.
    """

    def __init__(
        self,
        shards: Mapping[str, LocalShard],
        chunks: Sequence[nn.Module],
        options: LoRAConfig,
        seed: int,
    ) -> None:
        self.scale = (options.alpha or options.rank) / options.rank
        owners = {p.data_ptr(): p for chunk in chunks for p in chunk.parameters()}
        self._base, self._bases = HostCopies(), dict[str, Tensor]()
        self.each: list[Adapter] = []
        for shard in shards.values():
            for tensor in shard.rule.tensors:
                if shard.rule.dim is None or not options.adapts(tensor.name):
                    continue
                segments = tuple(s for s in shard.segments if s.tensor == tensor.name)
                index = torch.cat([torch.arange(s.run.start, s.run.stop) for s in segments])
                out, width = tensor.shape
                a, b = first_factors(tensor.name, (out, width), options.rank, seed)
                where = shard.tensor.device
                here = (a, b[index]) if tensor.dim == 0 else (a[:, index], b)
                own_a, own_b = (nn.Parameter(x.to(where).contiguous()) for x in here)
                owner = owners[shard.tensor.data_ptr()]
                self.each.append(
                    Adapter(
                        tensor.name,
                        (out, width),
                        tensor.dim,
                        index.to(where),
                        shard,
                        segments,
                        owner,
                        self.scale,
                        own_a,
                        own_b,
                    )
                )

    def take_base(self) -> None:
        """The parameters as they are now are W0."""
        for adapter in self.each:
            self._bases[adapter.name] = self._base.take(adapter.name, adapter.weight())
        device.synchronize()

    def gradients(self, tp_group: dist.ProcessGroup) -> None:
        """Set every factor's gradient from the parameters'. Collective."""
        for adapter in self.each:
            adapter.gradients()
        if tp_group.size() == 1 or not self.each:
            return
        factors = [adapter.replicated for adapter in self.each]
        flat = torch.cat([factor.grad.flatten() for factor in factors if factor.grad is not None])
        dist.all_reduce(flat, group=tp_group)
        for factor, part in zip(factors, flat.split([f.numel() for f in factors]), strict=True):
            factor.grad = part.view_as(factor)

    @torch.no_grad()
    def merge(self) -> None:
        """Bring the parameters up to date with the factors."""
        for adapter in self.each:
            adapter.merge(self._bases[adapter.name])


def first_factors(name: str, shape: tuple[int, int], rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """A [r, in] uniform in ±1 / √in (PEFT's Kaiming draw) by the tensor's name and the seed, whatever the
    layout; B [out, r] is 0, so that W begins as W0. fp32."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=6).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
    a = (torch.rand(rank, shape[1], generator=generator) * 2 - 1) / math.sqrt(shape[1])
    return a, torch.zeros(shape[0], rank)
