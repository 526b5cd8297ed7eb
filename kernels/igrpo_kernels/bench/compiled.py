"""``python -m igrpo_kernels.bench.compiled``: our kernels and their peers, compiled for GPUs without one.

Prints one Markdown table. Registers, stack and shared memory are the compiler's; bytes and instructions an
element are those of the loops over whole tiles of a row, the part that grows with the vocabulary. Eager forms
have no such code: each of their operators is taken to read its inputs and write its outputs once.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from igrpo_kernels import triton_kernels
from igrpo_kernels.bench.forms import _megatron_style
from igrpo_kernels.bench.machine_code import MachineCode, compile_kernel, machine_code
from igrpo_kernels.bench.problem import Problem, make_problem, written_out
from igrpo_kernels.configs import TABLE, Tile
from igrpo_kernels.objective import Objective
from igrpo_kernels.path import interpreted

ARCHITECTURES = (80, 90, 100)
"""A100, H100 and H200, B200."""
VOCABULARY = 152_064
POINTERS = {2: "*bf16", 4: "*fp32"}


@dataclass(frozen=True)
class Case:
    """A kernel as it is launched: see ``compile_kernel``."""

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    itemsize: int
    """Bytes of an element that its loops read."""
    warps: int
    stages: int = 3
    blackwell_warps: int | None = None
    """Where it is launched with another number of warps from sm_100 on."""

    def compiled(self, architecture: int) -> Any:
        warps = self.blackwell_warps if self.blackwell_warps and architecture >= 100 else self.warps
        options = {"num_warps": warps, "num_stages": self.stages}
        return compile_kernel(self.kernel, self.types, self.constants, architecture, **options)

    def an_element(self, code: MachineCode) -> tuple[float, float]:
        """(bytes, instructions of one thread) for each element of a row, in whole tiles."""
        # beside a loop that fetches ahead lies one for the remainder
        loops = [loop for loop in code.loops if loop.is_asynchronous] or code.loops
        moved = sum(self.itemsize * (loop.loaded + loop.stored) / loop.loaded for loop in loops)
        return moved, sum(self.itemsize * loop.instructions / loop.loaded for loop in loops)


def shape(tile: Tile) -> dict[str, int]:
    return {"R": tile.rows, "L": tile.lanes, "K": tile.vector, "STAGES": tile.stages}


def row_stats(itemsize: int, tile: Tile, name: str = "") -> Case:
    types = {
        "logits": POINTERS[itemsize], "target": "*i64", "weight": "*fp32", "stats": "*fp32", "T": "i32",
        "stride": "i32", "vocab_start": "i32", "valid_columns": "i32", "inv_temperature": "fp32",
    }  # fmt: skip
    constants = {"HAS_WEIGHT": True, **shape(tile)}
    return Case(name, triton_kernels.row_stats_kernel, types, constants, itemsize, tile.warps)


def logits_grad(itemsize: int, tile: Tile, name: str = "") -> Case:
    types = {
        "out": POINTERS[itemsize], "logits": POINTERS[itemsize], "target": "*i64", "rows": "*fp32",
        "grads": "*fp32", "scale": "*fp32", "T": "i32", "stride_out": "i32", "stride": "i32",
        "vocab_start": "i32", "valid_columns": "i32", "columns": "i32", "inv_temperature": "fp32",
    }  # fmt: skip
    return Case(name, triton_kernels.logits_grad_kernel, types, shape(tile), itemsize, tile.warps)


def ours() -> Iterator[Case]:
    """Every entry of the table of tiles."""
    for largest, itemsize, tiles in TABLE["cuda"]:
        kind = f"{POINTERS[itemsize][1:]}, V {'≤' if largest < VOCABULARY else '>'} {min(largest, 16_384):,}"
        yield row_stats(itemsize, tiles.stats, f"igrpo_kernels forward, {kind}")
        yield logits_grad(itemsize, tiles.grad, f"igrpo_kernels backward, {kind}")


def ligers() -> Iterator[Case]:
    """Liger's on bf16 logits, with the tiles and warps of its own launches at this vocabulary."""
    from liger_kernel.ops import cross_entropy, grpo_loss, vocab_parallel_cross_entropy

    f, i = "*fp32", "i32"
    types = {
        "LOGITS": "*bf16", "OLD_LOGP": f, "REF_LOGP": f, "INPUT_IDS": "*i64", "COMPLETION_MASK": "*i64",
        "ADVANTAGES": f, "LSE": f,
    }  # fmt: skip
    constants: dict[str, Any] = {
        "TEMPERATURE": 1.0, "BETA": 0.04, "EPS_LOW": 0.2, "EPS_HIGH": 0.2, "LOSS_TYPE": 0,
        "SAPO_TEMP_POS": 1.0, "SAPO_TEMP_NEG": 1.05, "DELTA": 0.0, "USE_BIAS_CORRECTION_KL": False,
        "L": 512, "N": VOCABULARY, "VLLM_IS_RATIO": None, "PHI_SEQ": None, "VLLM_IS_RATIO_STRIDE": 1,
    }  # fmt: skip
    forward = {**types, "LOSS": f, "KL": f, "IS_CLIPPED": f}
    name = "Liger GRPO loss forward, bf16"
    yield Case(name, grpo_loss._grpo_loss_fwd_kernel, forward, {**constants, "BLOCK_N": 2048}, 2, 1, 2)
    backward = {**types, "DLOSS": f, "DLOGITS": "*bf16", "loss_stride0": i}
    constants = {**constants, "loss_stride1": 1, "BLOCK_N": 4096}
    name = "Liger GRPO loss backward, bf16"
    yield Case(name, grpo_loss._grpo_loss_bwd_kernel, backward, constants, 2, 16, 1)

    types = {
        "X_ptr": "*bf16", "X_stride": i, "Y_ptr": "*i64", "weight_ptr": "*bf16", "loss_ptr": f, "n_cols": i,
        "n_non_ignore": i, "sum_non_ignore_weight": "fp32", "weight_sum": "fp32", "ignore_index": i,
    }  # fmt: skip
    unused = ("z_loss_ptr", "token_accuracy_ptr", "predicted_tokens_ptr", "softcap")
    zero = ("token_accuracy_stride", "predicted_tokens_stride", "lse_square_scale", "label_smoothing")
    off = ("RETURN_Z_LOSS", "RETURN_TOKEN_ACCURACY", "RETURN_PREDICTED_TOKENS", "HAS_WEIGHT")
    constants = {**dict.fromkeys(unused), **dict.fromkeys(zero, 0.0), **dict.fromkeys(off, False)}
    constants |= {"Y_stride": 1, "loss_stride": 1, "reduction": "mean", "BLOCK_SIZE": 32_768}
    constants |= {"HAS_SOFTCAPPING": False, "HAS_GRADIENTS": True}
    name = "Liger cross entropy with gradient, bf16"
    yield Case(name, cross_entropy.liger_cross_entropy_kernel, types, constants, 2, 32, blackwell_warps=8)

    parallel = vocab_parallel_cross_entropy
    place = {"EXP_ptr": f, "EXP_stride": i, "Y_ptr": "*i64", "vocab_start": i, "n_cols": i, "ignore_index": i}
    types = {"X_ptr": "*bf16", "X_stride": i, "logits_max_ptr": f, "pred_ptr": f, "sum_exp_ptr": f, **place}
    name = "Liger vocabulary-parallel CE forward, bf16"
    constants = {"BLOCK_SIZE": 32_768}
    yield Case(name, parallel.liger_vocab_parallel_ce_forward_kernel, types, constants, 2, 32)
    types = {"sum_exp_ptr": f, "grad_out_ptr": f, "alpha_eff": "fp32", "eps_eff": "fp32", **place}
    constants = {**constants, "HAS_LABEL_SMOOTHING": False}
    name = "Liger vocabulary-parallel CE backward, fp32"
    yield Case(name, parallel.liger_vocab_parallel_ce_backward_kernel, types, constants, 4, 32)


class _Traffic(TorchDispatchMode):
    """Bytes that operators read and write. What picks single elements of a row counts for nothing."""

    ROWWISE = ("gather", "scatter_add", "index", "empty", "detach")

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and not func.overloadpacket.__name__.strip("_").startswith(self.ROWWISE):
            found = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
            self.bytes += sum(min(x.nbytes, x.untyped_storage().nbytes()) for x in found)
        return out


def eager_bytes(loss: Callable[[torch.Tensor, Problem], torch.Tensor]) -> tuple[float, float]:
    """Bytes an element of an eager form on bf16 logits: (forward, forward + backward)."""
    logits_TV = torch.randn(16, 4096).bfloat16()
    problem = make_problem(logits_TV, Objective(kl_coef=0.04))
    logits_TV.requires_grad_()
    with _Traffic() as traffic:
        value = loss(logits_TV, problem)
        forward = traffic.bytes
        value.backward()
    return forward / logits_TV.numel(), traffic.bytes / logits_TV.numel()


def main() -> int:
    if interpreted():
        sys.exit("Triton's interpreter compiles nothing: unset TRITON_INTERPRET")
    cases = [*ours()]
    if importlib.util.find_spec("liger_kernel") is None:
        print("Liger's kernels are left out: liger-kernel is not installed", file=sys.stderr)
    else:
        cases += ligers()
    print(f"{' / '.join(f'sm_{a}' for a in ARCHITECTURES)}, V {VOCABULARY:,}\n")
    print(
        "| kernel | registers | stack, bytes | shared, bytes | bytes an element | instructions an element |"
    )
    print("|---|---|---|---|---|---|")
    for case in cases:
        codes = [machine_code(case.compiled(architecture)) for architecture in ARCHITECTURES]
        cells = [[str(c.registers) for c in codes], [str(c.stack) for c in codes]]
        cells += [[f"{c.shared:,}" for c in codes]]
        moved, instructions = zip(*map(case.an_element, codes), strict=True)
        cells += [[f"{x:.0f}" for x in moved], [f"{x:.1f}" for x in instructions]]
        # one number where all are the same
        print(f"| {case.name} | {' | '.join(' / '.join(c if len(set(c)) > 1 else c[:1]) for c in cells)} |")
    for name, form in (("Megatron-style CE", _megatron_style), ("PyTorch eager", written_out)):
        forward, both = eager_bytes(form)
        print(f"| {name}, operators on bf16, forward; both | | | | {forward:.0f}; {both:.0f} | |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
