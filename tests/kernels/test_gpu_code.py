"""The kernels compiled for an A100, an H100/H200 and a B200, which needs no GPU, and what that code shows."""

import re

import pytest
from igrpo_kernels.configs import TABLE
from igrpo_kernels.path import interpreted

pytest.importorskip("triton")
if interpreted():
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from igrpo_kernels import triton_kernels
from igrpo_kernels.bench import compiled
from igrpo_kernels.bench.compiled import ARCHITECTURES, Case
from igrpo_kernels.bench.machine_code import compile_kernel, machine_code

STEP = {
    "rows": "*fp32", "advantage": "*fp32", "weight": "*fp32", "old_logprob": "*fp32", "ref_logprob": "*fp32",
    "importance": "*fp32", "grads": "*fp32", "partials": "*fp32", "T": "i32", "low": "fp32", "high": "fp32",
    "dual_clip": "fp32", "kl_coef": "fp32", "entropy_coef": "fp32",
}  # fmt: skip
OURS = list(compiled.ours())
# `make test` compiles for all of them
EACH = [pytest.param(a, marks=[] if a == 90 else pytest.mark.slow) for a in ARCHITECTURES]


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "triton"))


@pytest.mark.parametrize("architecture", EACH)
@pytest.mark.parametrize("case", OURS, ids=lambda case: case.name)
def test_the_large_kernels_spill_nothing_and_move_each_logit_once(case: Case, architecture: int) -> None:
    kernel = case.compiled(architecture)
    code = machine_code(kernel)
    assert code.stack == 0
    # three programs fit a multiprocessor of 65,536 registers and 163 KiB (A100) of shared memory
    assert 3 * 32 * case.warps * code.registers <= 65_536
    assert 3 * code.shared <= 163 * 1024
    # 16 bytes at a time, asynchronously
    assert re.search(r"cp\.async\.cg\.shared\.global[^;]*, 0x10", kernel.asm["ptx"])
    moved, instructions = case.an_element(code)
    is_backward = case.kernel is triton_kernels.logits_grad_kernel
    if is_backward:
        assert re.search(r"st\.global[^;]*\.v4", kernel.asm["ptx"])
    assert moved == case.itemsize * (2 if is_backward else 1)
    assert instructions <= 14


def test_a_spill_would_be_seen() -> None:
    """Two warps for a tile of 8,192 columns: the 128 elements of a thread do not fit its registers."""
    tile = TABLE["cuda"][-2][2].stats
    wide = type(tile)(rows=1, lanes=1024, vector=8, warps=2, stages=1)
    assert machine_code(compiled.row_stats(2, wide).compiled(90)).stack > 0


@pytest.mark.parametrize("architecture", EACH)
@pytest.mark.parametrize("kind", ["clip", "reinforce", "cispo"])
def test_the_small_kernels_spill_nothing(kind: str, architecture: int) -> None:
    has = {"HAS_OLD": True, "HAS_REF": True, "HAS_IMPORTANCE": True, "HAS_DUAL_CLIP": kind == "clip"}
    constants = {"KIND": kind, "KL_KIND": "k3", "B": 1024, **has}
    kernels = [compile_kernel(triton_kernels.objective_kernel, STEP, constants, architecture)]
    types = {"stats": "*fp32", "rows": "*fp32", "T": "i32", "inv_temperature": "fp32"}
    for ranks in (1, 8):
        constants = {"W": ranks, "B": 256}
        kernels.append(compile_kernel(triton_kernels.merge_kernel, types, constants, architecture))
    types = {"partials": "*fp32", "summary": "*fp32", "N": "i32"}
    kernels.append(compile_kernel(triton_kernels.summary_kernel, types, {"B": 128}, architecture))
    assert [machine_code(kernel).stack for kernel in kernels] == [0, 0, 0, 0]


def test_inputs_that_are_left_out_compile_too() -> None:
    """``None`` for a pointer is a constant to Triton."""
    left_out = ("old_logprob", "ref_logprob", "importance")
    constants = {"KIND": "reinforce", "KL_KIND": "none", "B": 1024, **dict.fromkeys(left_out)}
    constants |= {f"HAS_{name}": False for name in ("OLD", "REF", "IMPORTANCE", "DUAL_CLIP")}
    types = {name: kind for name, kind in STEP.items() if name not in left_out}
    compile_kernel(triton_kernels.objective_kernel, types, constants, 90)
    case = compiled.row_stats(4, TABLE["cuda"][-1][2].stats)
    types = {name: kind for name, kind in case.types.items() if name != "weight"}
    constants = {**case.constants, "weight": None, "HAS_WEIGHT": False}
    compile_kernel(case.kernel, types, constants, 90, num_warps=case.warps)


def test_bytes_of_eager_operators() -> None:
    """Forward the cast 6, max 4, subtraction, exp and division 8 each, sum 4; backward product 8, cast 6."""
    forward, both = compiled.eager_bytes(compiled._megatron_style)
    assert forward == pytest.approx(38, abs=0.2)
    assert both == pytest.approx(52, abs=0.2)


def test_ligers_kernels_compile_beside_ours() -> None:
    pytest.importorskip("liger_kernel")
    forward, backward, *_ = compiled.ligers()
    assert forward.an_element(machine_code(forward.compiled(90)))[0] == 2
    assert backward.an_element(machine_code(backward.compiled(90)))[0] == 4
