"""What the driver says of a node's GPUs, by nvidia-smi and the kernel's log; loads neither torch nor CUDA."""

import re
import subprocess
from collections import Counter
from dataclasses import dataclass

NVIDIA_SMI_LIMIT_S = 60.0
"""A GPU that fell off the bus makes nvidia-smi hang rather than fail."""
LEFTOVER_MIB = 2048
"""More than a driver holds of an idle GPU; what else is in use was left by another job."""
FATAL_XIDS = {
    48: "double-bit ECC error",
    64: "row remapping failed",
    74: "NVLink error",
    79: "GPU fell off the bus",
    95: "uncontained ECC error",
    119: "GSP time-out",
    120: "GSP error",
}
"""Of NVIDIA's "XID Errors" those after which a GPU wants a reset or repair; 13, 31, 43 are programs' own."""

_FIELDS = (
    "driver_version",
    "name",
    "memory.total",
    "memory.used",
    "ecc.errors.uncorrected.volatile.total",
    "pcie.link.width.current",
    "pcie.link.width.max",
)
_QUERY = ["nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]


@dataclass(frozen=True)
class Gpu:
    """One line of nvidia-smi; what a GPU does not support is None."""

    driver: str
    name: str
    total_mib: int
    used_mib: int
    ecc_errors: int | None
    """Uncorrected ones since the driver was loaded."""
    lanes: int | None
    """PCIe lanes in use, and those that GPU and slot have."""
    lanes_max: int | None


def read_gpus() -> tuple[list[Gpu], str | None]:
    """The GPUs of this node, and why they could not be asked."""
    try:
        return parse_gpus(_run(_QUERY)), None
    except FileNotFoundError:
        return [], "there is no nvidia-smi"
    except subprocess.TimeoutExpired:
        return [], f"nvidia-smi did not answer within {NVIDIA_SMI_LIMIT_S:g} s"
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stdout", "") or getattr(error, "stderr", "") or str(error)
        return [], f"nvidia-smi failed: {' '.join(said.split())[:200]}"


def parse_gpus(listing: str) -> list[Gpu]:
    """Of nvidia-smi's CSV. Raises ``ValueError`` for a line that is none."""
    found = []
    for line in listing.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) != len(_FIELDS):
            raise ValueError(f"not a line of {len(_FIELDS)} values: {line}")
        total, used, ecc, lanes, lanes_max = (int(v) if v.isdigit() else None for v in values[2:])
        found.append(Gpu(values[0], values[1], total or 0, used or 0, ecc, lanes, lanes_max))
    return found


def faults(gpus: list[Gpu], mine_alone: bool) -> list[str]:
    """What is wrong with a node's GPUs, a sentence each. ``mine_alone``: no other job may use one of them."""
    found = []
    for index, gpu in enumerate(gpus):
        if mine_alone and gpu.used_mib > LEFTOVER_MIB:
            found.append(
                f"GPU {index} has {gpu.used_mib / 1024:.1f} GiB in use before the job starts (a dead job's "
                "process, or another's: nvidia-smi on that node names it)"
            )
        if gpu.ecc_errors:
            found.append(f"GPU {index} counts {gpu.ecc_errors} uncorrected ECC errors: it needs a reset")
        if gpu.lanes is not None and gpu.lanes_max is not None and gpu.lanes < gpu.lanes_max:
            found.append(f"GPU {index} has {gpu.lanes} of its {gpu.lanes_max} PCIe lanes")
    return found


def nvlinks() -> list[int]:
    """Active NVLinks of each GPU; empty where there are none or they cannot be asked."""
    try:
        return parse_nvlinks(_run(["nvidia-smi", "nvlink", "--status"]))
    except (OSError, subprocess.SubprocessError):
        return []


def parse_nvlinks(listing: str) -> list[int]:
    """Of ``nvidia-smi nvlink --status``: a line "GPU n: …", then "Link m: 26.562 GB/s" or "<inactive>"."""
    counts: list[int] = []
    for line in listing.splitlines():
        if line.startswith("GPU "):
            counts.append(0)
        elif counts and re.match(r"\s*Link \d+: [\d.]+ GB/s", line):
            counts[-1] += 1
    return counts if any(counts) else []


def lost_links(counts: list[int]) -> list[str]:
    """The GPUs with fewer active NVLinks than most of their node have."""
    usual = Counter(counts).most_common(1)[0][0] if counts else 0
    return [f"GPU {i} has {n} active NVLinks, the others {usual}" for i, n in enumerate(counts) if n < usual]


def fatal_xids() -> list[str]:
    """What the kernel noted since it was booted; empty where its log cannot be read."""
    try:
        return parse_xids(_run(["dmesg"]))
    except (OSError, subprocess.SubprocessError):
        return []


def parse_xids(log: str) -> list[str]:
    """A sentence for each fatal kind and GPU, of lines "NVRM: Xid (PCI:0000:3b:00): 79, …"."""
    found: dict[str, None] = {}  # in order, each once
    for place, number in re.findall(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+)", log):
        if int(number) in FATAL_XIDS:
            found[f"Xid {number} ({FATAL_XIDS[int(number)]}) of GPU {place} in the kernel's log"] = None
    return list(found)


def _run(command: list[str]) -> str:
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=NVIDIA_SMI_LIMIT_S
    ).stdout
