"""One rank of a recipe at its true size, built and run by the policy's own code without any of its memory.

python -m tests.planning.true_sizes RECIPE [WORLD] [key=value ...] prints a table beside what is planned.

Tensors are fake (FakeTensorMode: shapes, dtypes and storages, no data), and so is the process group. A row
of one sequence as long as the recipe allows goes forward and backward through PyTorch's attention, norms and
scan, which stand in for Transformer Engine and mamba_ssm on a machine without a GPU.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch._subclasses.fake_tensor as fake_tensor
import torch.distributed as dist
from megatron.core.tensor_parallel.random import CudaRNGStatesTracker
from torch.utils.flop_counter import FlopCounterMode

from igrpo_mcore import device
from igrpo_mcore.config.load import load_config
from igrpo_mcore.config.schema import Config
from igrpo_mcore.planning import activations as act
from igrpo_mcore.planning.activations import Kernels, Shape
from igrpo_mcore.planning.catalogue import PlannedModel, itemsize, planned_model
from igrpo_mcore.planning.flops import mixing_flops
from igrpo_mcore.planning.layout import default_world, layout_of, stages_of
from igrpo_mcore.planning.parameters import trainer_bytes
from igrpo_mcore.planning.workload import largest_micro_batch
from igrpo_mcore.policy.architecture import padded_vocab_size
from igrpo_mcore.policy.flops import attention_flops, forward_flops
from igrpo_mcore.policy.model import PolicyModel
from igrpo_mcore.policy.packing import PackedRow, pack
from igrpo_mcore.policy.policy import Policy
from igrpo_mcore.types import TrainingSequence
from tests.planning.support import lone_rank

CONSTANTS = 64
"""Elements up to which a fake tensor made of numbers keeps them: the boundaries of sequences are read."""


@dataclass(frozen=True)
class Sizes:
    """Of rank 0, counted. Bytes and FLOP; ``saved`` by module ("decoder.layers.3"), ``flops`` of the forward
    pass by operator and ``backward`` the same of the backward pass."""

    tokens: int
    rows: int
    parameters: int
    gradients: int
    optimizer: int
    saved: dict[str, int]
    logits: int
    flops: dict[str, int]
    backward: dict[str, int]


def _everyone_has_mine(out: list, mine: Any, group: object = None) -> None:
    out[:] = [mine] * len(out)


@contextmanager
def without_data() -> Iterator[fake_tensor.FakeTensorMode]:
    """A fake mode, and what asks for values in building a policy left out."""
    with (
        patch.object(fake_tensor, "CONSTANT_NUMEL_LIMIT", CONSTANTS),
        patch.object(PolicyModel, "to", lambda self, _: self),  # they are there, and cannot be swapped
        patch.object(CudaRNGStatesTracker, "fork", lambda *_: nullcontext()),
        patch.object(dist, "all_gather_object", _everyone_has_mine),
        patch("torch.optim._functional.adamw", lambda *_, **__: None),  # its state is made before
    ):
        yield fake_tensor.FakeTensorMode(allow_non_fake_inputs=True)


def optimizer_bytes(optimizer) -> int:
    """Main copies and moments, each tensor once."""
    found: dict[int, int] = {}
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        states = part.optimizer.state.values()
        tensors = [t for state in states for t in state.values() if torch.is_tensor(t)]
        tensors += [p for group in part.shard_fp32_from_float16_groups for p in group if p is not None]
        found |= {id(t): t.nbytes for t in tensors}
    return sum(found.values())


class Saved:
    """Bytes of the storages that autograd keeps, each once, by the module that ran."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._place = ["head"]
        self._kept: dict[int, torch.Tensor] = {}
        self._parameters = {p.untyped_storage()._cdata for p in model.parameters()}
        self.bytes: dict[str, int] = {}
        for name, module in model.named_modules():
            if name:
                module.register_forward_pre_hook(lambda *_, name=name: self._place.append(name))
                module.register_forward_hook(lambda *_: self._place.pop() and None)

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._parameters and storage._cdata not in self._kept:
            self._kept[storage._cdata] = tensor  # keeps the address from being used again
            parts = self._place[-1].split(".")
            layer = ".".join(parts[:3]) if "layers" in parts else self._place[-1]
            self.bytes[layer] = self.bytes.get(layer, 0) + storage.nbytes()
        return tensor


def longest_row(config: Config) -> PackedRow:
    """One sequence of the largest micro-batch's tokens: a full completion after what is left for a prompt."""
    tokens = largest_micro_batch(config, config.parallel.tp)
    completion = config.rollout.max_completion_tokens
    sequence = TrainingSequence((1,) * (tokens - completion), (1,) * completion)
    return pack([sequence], [0], config.parallel.tp, torch.device("cpu"))


def true_sizes(config: Config, model: PlannedModel, world: int) -> Sizes:
    """Build rank 0 of ``world`` and run one micro-batch forward and backward, then the optimizer's step."""
    with lone_rank(config, 0, world), without_data() as mode:
        with mode:
            policy = Policy(config, model.architecture, updates=2)
            buffers = [buffer for ddp in policy._ddp for buffer in ddp.buffers]
        row = longest_row(config)
        boundaries = row.cu_seqlens.tolist()
        saved, forward, backward = (
            Saved(policy.chunks[0]),
            *(FlopCounterMode(display=False, custom_mapping=ATTENTION) for _ in range(2)),
        )
        with mode, device.megatron_on_cpu():
            row = replace(row, cu_seqlens=torch.tensor(boundaries, dtype=torch.int32))
            with torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor), forward:
                logits = policy._ddp[0](row)
            with backward:
                logits.backward(torch.ones_like(logits))
            for part in getattr(policy._optimizer, "chained_optimizers", [policy._optimizer]):
                part.prepare_grads()
                part.optimizer.step()
        return Sizes(
            tokens=row.tokens_T.numel(),
            rows=row.rows_R.numel(),
            parameters=sum(buffer.param_data.nbytes for buffer in buffers),
            gradients=sum(buffer.grad_data.nbytes for buffer in buffers),
            optimizer=optimizer_bytes(policy._optimizer),
            saved=saved.bytes,
            logits=logits.nbytes,
            flops=by_operator(forward),
            backward=by_operator(backward),
        )


def by_operator(counter: FlopCounterMode) -> dict[str, int]:
    return {str(op).removeprefix("aten."): n for op, n in counter.get_flop_counts()["Global"].items()}


def _pairs(query: torch.Size, key: torch.Size) -> int:
    """Heads x pairs of a token and one that it sees, of a causal attention."""
    batch, heads, tokens, _ = query
    return batch * heads * tokens * (tokens + 1) // 2


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    """Two products over what a token sees; PyTorch's counter does not know its attention on CPUs."""
    return 4 * _pairs(query, key) * query[-1]


def _attention_backward(
    grad: torch.Size, query: torch.Size, key: torch.Size, *_: object, **__: object
) -> int:
    """Five products, one of them the scores anew."""
    return 10 * _pairs(query, key) * query[-1]


ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


@dataclass(frozen=True)
class Line:
    """A figure that was counted, beside the plan's."""

    what: str
    counted: float
    planned: float

    @property
    def ratio(self) -> float:
        return self.planned / self.counted


def beside_plan(sizes: Sizes, config: Config, model: PlannedModel, world: int) -> list[Line]:
    """Everything counted, with the figure that a plan has for it."""
    a, tp = model.architecture, config.parallel.tp
    layout = layout_of(config, a, world)
    stage, shape = stages_of(a, layout)[0], Shape(a, tp, config.parallel.sp)
    trainer = trainer_bytes(model, layout, stage)
    columns = padded_vocab_size(a, tp) // tp
    lines = [
        Line("parameters, bytes", sizes.parameters, trainer.parameters),
        Line("gradients, bytes", sizes.gradients, trainer.gradients),
        Line("optimizer, bytes", sizes.optimizer, trainer.optimizer),
        Line("logits, bytes", sizes.logits, sizes.rows * columns * itemsize(a)),
    ]
    kinds = {"*": "attention", "-": "MLP", "M": "Mamba"}
    for symbol in dict.fromkeys(a.pattern):
        layers = [i for i, kind in enumerate(a.pattern) if kind == symbol]
        # the first layer has what all share besides: rotary tables, the row's index
        counted = min(sizes.saved[f"decoder.layers.{i}"] for i in layers)
        for kernels in (Kernels.torch, Kernels.fused) if symbol != "M" else (Kernels.fused,):
            planned = act.saved_by_layer(symbol, shape, kernels) * sizes.tokens
            lines.append(Line(f"saved by one {kinds[symbol]} layer, as {kernels} kernels", counted, planned))
    forward = {op: n for op, n in sizes.flops.items() if op not in DEPTHWISE}
    backward = {op: n for op, n in sizes.backward.items() if op not in DEPTHWISE}
    attending = sizes.tokens * (sizes.tokens + 1) // 2
    scan = sizes.tokens * mixing_flops(a, 0) / tp
    products = forward_flops(a, sizes.tokens, 0, sizes.rows) / tp - scan
    whole = forward_flops(a, sizes.tokens, attending, sizes.rows) / tp
    attended = sum(n for op, n in forward.items() if "attention" in op)
    lines += [
        Line("forward FLOP", sum(forward.values()), whole),
        Line("of them linear layers and LM head", forward["mm"], products),
        Line("of them attention", attended, attending * attention_flops(a) / tp),
    ]
    if a.mamba is not None:
        lines.append(Line("of them Mamba's scan", forward["bmm"], scan))
    return [*lines, Line("backward FLOP", sum(backward.values()), 2 * whole)]


DEPTHWISE = ("convolution", "convolution_backward")
"""Not in a plan: 4 products a channel and token. PyTorch counts the backward as if every channel saw all."""


def table(lines: list[Line]) -> str:
    """As Markdown."""
    rows = [
        f"| {line.what} | {line.counted:,.0f} | {line.planned:,.0f} | {line.ratio:.3f} |" for line in lines
    ]
    return "\n".join(["| rank 0 | counted | planned | ratio |", "|---|---|---|---|", *rows])


def main() -> None:
    recipe, *rest = sys.argv[1:]
    world = int(rest.pop(0)) if rest and rest[0].isdigit() else None
    config = load_config(Path(recipe), rest)
    model = planned_model(config.model.path, config.model.dtype)
    world = world or default_world(config, 8)
    sizes = true_sizes(config, model, world)
    print(
        f"{recipe}, tp {config.parallel.tp} of {world} ranks, "
        f"{sizes.tokens:,} tokens, {sizes.rows:,} to the head\n"
    )
    print(table(beside_plan(sizes, config, model, world)))


if __name__ == "__main__":
    main()
