"""AdamW over adapters alone, in the place of Megatron's optimizer over all parameters."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state as mpu
from megatron.core.dist_checkpointing import ShardedTensor
from megatron.core.distributed import DistributedDataParallel, finalize_model_grads
from torch import Tensor

from igrpo_mcore import device
from igrpo_mcore.config.schema import OptimizerConfig
from igrpo_mcore.policy.lora import Adapter, Adapters

MOMENTS = ("exp_avg", "exp_avg_sq")


class LoRAOptimizer:
    """What ``Policy`` asks of Megatron's optimizer, by the same names.

    Every data-parallel rank holds all adapters and takes the same step, so the policy's gradients must be
    summed over all of them whole (no distributed optimizer). What is no target never changes.
    """

    def __init__(
        self, adapters: Adapters, ddp: Sequence[DistributedDataParallel], options: OptimizerConfig
    ) -> None:
        self._adapters, self._clip = adapters, options.grad_clip
        self._tp = mpu.get_tensor_model_parallel_group()
        # a stage may hold no target: Adam wants a parameter all the same
        factors = [factor for adapter in adapters.each for factor in (adapter.a, adapter.b)]
        self._adam = torch.optim.AdamW(
            factors or [torch.nn.Parameter(torch.zeros(0))],
            lr=options.lr,
            betas=(options.beta1, options.beta2),
            eps=options.eps,
            weight_decay=options.weight_decay,
        )
        ddp[0].config.finalize_model_grads_func = finalize_model_grads

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self._adam.param_groups

    def reload_model_params(self) -> None:
        """The parameters as they are now are what adapters add to."""
        self._adapters.take_base()

    def zero_grad(self) -> None:
        self._adam.zero_grad()

    def prepare_grads(self) -> None:
        """Gradients of the factors from those of the parameters; again changes nothing. Collective."""
        self._adapters.gradients(self._tp)

    def get_grad_norm(self) -> float:
        """Of all factors of the whole model, each once. Collective."""
        squares = torch.zeros((), dtype=torch.float64)
        for adapter in self._adapters.each:
            squares += _square(adapter.divided.grad)
            if self._tp.rank() == 0:
                squares += _square(adapter.replicated.grad)
        total = squares.to(device.current_device())
        dist.all_reduce(total, group=mpu.get_model_parallel_group())
        return math.sqrt(float(total))

    def step(self) -> None:
        """Clip by the norm of all factors, take AdamW's step, merge. Collective."""
        factor = self._clip / (self.get_grad_norm() + 1e-6)  # as Megatron clips
        if factor < 1:
            for adapter in self._adapters.each:
                for parameter in (adapter.a, adapter.b):
                    assert parameter.grad is not None
                    parameter.grad.mul_(factor)
        self._adam.step()
        self._adapters.merge()

    # ---- checkpoints: whole factors, so that they load at any layout ----------------------------

    def sharded_state_dict(
        self, model: dict[str, Any], *, is_loading: bool, metadata: dict[str, Any]
    ) -> dict[str, Any]:
        """Factors and moments by tensor, and the steps taken. Collective."""
        replica = (0, self._tp.rank(), mpu.get_data_parallel_rank())
        steps = [int(state["step"]) for state in self._adam.state.values() if "step" in state]
        state: dict[str, Any] = {"steps": max(steps, default=0)}
        for adapter in self._adapters.each:
            for key, value in self._kept(adapter).items():
                whole = self._whole(adapter, key[0], value)
                state[f"{adapter.name}.{key}"] = ShardedTensor.from_rank_offsets(
                    f"lora.{adapter.name}.{key}", whole, replica_id=replica
                )
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a loaded ``sharded_state_dict``."""
        for adapter in self._adapters.each:
            for which, factor in (("a", adapter.a), ("b", adapter.b)):
                found = {
                    moment: self._here(adapter, which, state[f"{adapter.name}.{which}.{moment}"])
                    for moment in MOMENTS
                }
                with torch.no_grad():
                    factor.copy_(self._here(adapter, which, state[f"{adapter.name}.{which}"]))
                if state["steps"]:
                    self._adam.state[factor] = {"step": torch.tensor(float(state["steps"])), **found}

    def _kept(self, adapter: Adapter) -> dict[str, Tensor]:
        kept: dict[str, Tensor] = {}
        for which, factor in (("a", adapter.a), ("b", adapter.b)):
            moments = self._adam.state.get(factor, {})
            kept[which] = factor.detach()
            for moment in MOMENTS:
                kept[f"{which}.{moment}"] = moments.get(moment, torch.zeros_like(factor))
        return kept

    def _whole(self, adapter: Adapter, which: str, value: Tensor) -> Tensor:
        if not self._is_divided(adapter, which):
            return value
        out, width = adapter.whole
        rank = adapter.a.shape[0]
        whole = value.new_zeros((rank, width) if which == "a" else (out, rank))
        whole.index_copy_(adapter.split, adapter.index, value)
        dist.all_reduce(whole, group=self._tp)
        return whole

    def _here(self, adapter: Adapter, which: str, whole: Tensor) -> Tensor:
        whole = whole.to(adapter.index.device)
        if not self._is_divided(adapter, which):
            return whole
        return whole.index_select(adapter.split, adapter.index)

    @staticmethod
    def _is_divided(adapter: Adapter, which: str) -> bool:
        return (which == "b") == (adapter.split == 0)


def _square(grad: Tensor | None) -> Tensor:
    assert grad is not None
    return grad.double().square().sum().cpu()
