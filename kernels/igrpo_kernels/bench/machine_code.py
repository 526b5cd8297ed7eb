"""What the compiler makes of a Triton kernel, read off its machine code. Needs Triton's tools and no GPU."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

# address, instruction; an instruction ends in " ;" and may begin with a predicate
_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s")
_ACCESS = re.compile(r"\b(LDGSTS|LDG|STG)\b((?:\.\w+)*)")
_WIDTH = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}


@dataclass(frozen=True)
class Loop:
    """One turn of an innermost loop, by one thread."""

    instructions: int
    loaded: int
    """Bytes read from global memory."""
    stored: int
    """Bytes written to it."""
    is_asynchronous: bool
    """Whether its loads go to shared memory turns ahead (cp.async)."""


@dataclass(frozen=True)
class MachineCode:
    registers: int
    """Of a thread."""
    stack: int
    """Bytes of a thread in local memory: what did not fit its registers."""
    shared: int
    """Bytes of a program."""
    loops: tuple[Loop, ...]
    """Those that load from global memory."""


def compile_kernel(
    kernel: Any, types: Mapping[str, str], constants: Mapping[str, Any], arch: int, **options: int
) -> Any:
    """``kernel`` for compute capability ``arch`` (90: sm_90), with pointers and row strides that are
    multiples of 16, as logits of a padded vocabulary have them.

    Args:
        types: of each argument that has a value at run time, such as "*bf16", "i32", "fp32".
        constants: the values of all others.
        options: num_warps, num_stages; Triton's defaults otherwise.
    """
    names = kernel.arg_names
    aligned = [n for n, kind in types.items() if kind.startswith("*") or "stride" in n.lower()]
    source = ASTSource(
        fn=kernel,
        signature={n: types.get(n, "constexpr") for n in names},
        constexprs={(names.index(n),): value for n, value in constants.items()},
        attrs={(names.index(n),): [["tt.divisibility", 16]] for n in aligned},
    )
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def machine_code(compiled: Any) -> MachineCode:
    """Raises subprocess.CalledProcessError where Triton's cuobjdump cannot read the binary."""
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        usage = re.search(r"REG:(\d+) STACK:(\d+)", _cuobjdump("-res-usage", binary))
        assert usage is not None
        loops = _loops(_cuobjdump("-sass", binary))
    return MachineCode(int(usage[1]), int(usage[2]), compiled.metadata.shared, loops)


def _cuobjdump(option: str, binary: Path) -> str:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    return subprocess.run([tool, option, binary], capture_output=True, text=True, check=True).stdout


def _loops(sass: str) -> tuple[Loop, ...]:
    code = [(int(at, 16), text) for at, text in _INSTRUCTION.findall(sass)]
    back = [
        (int(target[1], 16), at)
        for at, text in code
        if (target := re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)) and int(target[1], 16) < at
    ]
    innermost = [(a, b) for a, b in back if not any((a, b) != (c, d) and a <= c and d <= b for c, d in back)]
    found = [_loop([text for at, text in code if begin <= at <= end]) for begin, end in innermost]
    return tuple(loop for loop in found if loop.loaded)


def _loop(body: list[str]) -> Loop:
    loaded = stored = 0
    is_asynchronous = False
    for text in body:
        if access := _ACCESS.search(text):
            width = next((_WIDTH[part] for part in access[2].split(".") if part in _WIDTH), 4)
            if access[1] == "STG":
                stored += width
            else:
                loaded += width
            is_asynchronous |= access[1] == "LDGSTS"
    return Loop(len(body), loaded, stored, is_asynchronous)
