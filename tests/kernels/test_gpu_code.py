"""The kernels compiled for an H100/H200 (sm_90), which needs no GPU, and what that machine code shows."""

import re
import subprocess
from pathlib import Path

import pytest
import torch
from igrpo_kernels.configs import TABLE, Tile
from igrpo_kernels.path import interpreted

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(interpreted(), reason="the interpreter compiles nothing")

DTYPES = {"*bf16": torch.bfloat16, "*fp32": torch.float32}
STATS = {
    "target": "*i64", "weight": "*fp32", "stats": "*fp32", "T": "i32", "stride": "i32",
    "vocab_start": "i32", "valid_columns": "i32", "inv_temperature": "fp32",
}  # fmt: skip
GRAD = {
    "target": "*i64", "rows": "*fp32", "grads": "*fp32", "scale": "*fp32", "T": "i32",
    "stride_out": "i32", "stride": "i32", "vocab_start": "i32", "valid_columns": "i32", "columns": "i32",
    "inv_temperature": "fp32",
}  # fmt: skip
STEP = {
    "rows": "*fp32", "advantage": "*fp32", "weight": "*fp32", "old_logprob": "*fp32", "ref_logprob": "*fp32",
    "importance": "*fp32", "grads": "*fp32", "partials": "*fp32", "T": "i32", "low": "fp32", "high": "fp32",
    "dual_clip": "fp32", "kl_coef": "fp32", "entropy_coef": "fp32",
}  # fmt: skip


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compile_for_sm90(name: str, types: dict[str, str], constants: dict, warps: int = 4):
    """The kernel with 16-byte aligned pointers and strides, as logits of a padded vocabulary have them."""
    from igrpo_kernels import triton_kernels
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(triton_kernels, name)
    names = kernel.arg_names
    aligned = [n for n, kind in types.items() if kind.startswith("*") or n.startswith("stride")]
    source = ASTSource(
        fn=kernel,
        signature={n: types.get(n, "constexpr") for n in names},
        constexprs={(names.index(n),): value for n, value in constants.items()},
        attrs={(names.index(n),): [["tt.divisibility", 16]] for n in aligned},
    )
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})


def registers_and_stack(compiled, folder: Path) -> tuple[int, int]:
    binary = folder / "kernel.cubin"
    binary.write_bytes(compiled.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    text = subprocess.run([tool, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    return int(found[1]), int(found[2])


def shape(tile: Tile) -> dict[str, int]:
    return {"R": tile.rows, "L": tile.lanes, "K": tile.vector, "STAGES": tile.stages}


@pytest.mark.parametrize("pointer", DTYPES)
@pytest.mark.parametrize("entry", range(2))
def test_the_large_kernels_spill_nothing_and_fetch_ahead(pointer: str, entry: int, tmp_path: Path) -> None:
    size = DTYPES[pointer].itemsize
    tiles = [tiles for _, itemsize, tiles in TABLE["cuda"] if itemsize == size][entry]
    stats = compile_for_sm90(
        "row_stats_kernel",
        {"logits": pointer, **STATS},
        {"HAS_WEIGHT": True, **shape(tiles.stats)},
        tiles.stats.warps,
    )
    grad = compile_for_sm90(
        "logits_grad_kernel", {"out": pointer, "logits": pointer, **GRAD}, shape(tiles.grad), tiles.grad.warps
    )
    for compiled, tile in ((stats, tiles.stats), (grad, tiles.grad)):
        registers, stack = registers_and_stack(compiled, tmp_path)
        assert stack == 0
        # three programs fit a multiprocessor of 65,536 registers
        assert 3 * 32 * tile.warps * registers <= 65_536
        # 16 bytes at a time, asynchronously
        assert re.search(r"cp\.async\.cg\.shared\.global[^;]*, 0x10", compiled.asm["ptx"])
    assert re.search(r"st\.global[^;]*\.v4", grad.asm["ptx"])


@pytest.mark.parametrize("kind", ["clip", "reinforce", "cispo"])
def test_the_small_kernels_compile(kind: str) -> None:
    has = {"HAS_OLD": True, "HAS_REF": True, "HAS_IMPORTANCE": True, "HAS_DUAL_CLIP": kind == "clip"}
    compile_for_sm90("objective_kernel", STEP, {"KIND": kind, "KL_KIND": "k3", "B": 1024, **has})
    for ranks in (1, 8):
        types = {"stats": "*fp32", "rows": "*fp32", "T": "i32", "inv_temperature": "fp32"}
        compile_for_sm90("merge_kernel", types, {"W": ranks, "B": 256})
    compile_for_sm90("summary_kernel", {"partials": "*fp32", "summary": "*fp32", "N": "i32"}, {"B": 128})


def test_inputs_that_are_left_out_compile_too() -> None:
    """``None`` for a pointer is a constant to Triton."""
    left_out = ("old_logprob", "ref_logprob", "importance")
    constants = dict.fromkeys(left_out) | {
        f"HAS_{name}": False for name in ("OLD", "REF", "IMPORTANCE", "DUAL_CLIP")
    }
    types = {name: kind for name, kind in STEP.items() if name not in left_out}
    compile_for_sm90(
        "objective_kernel", types, {"KIND": "reinforce", "KL_KIND": "none", "B": 1024, **constants}
    )
    tile = TABLE["cuda"][-1][2].stats
    types = {"logits": "*fp32", **STATS}
    del types["weight"]
    compile_for_sm90(
        "row_stats_kernel", types, {"weight": None, "HAS_WEIGHT": False, **shape(tile)}, tile.warps
    )
