"""nvidia-smi's and the kernel's own words, as driver 580 prints them."""

import pytest

from igrpo_mcore import gpu_state, health
from igrpo_mcore.gpu_state import (
    FATAL_XIDS,
    Gpu,
    faults,
    lost_links,
    parse_gpus,
    parse_nvlinks,
    parse_xids,
    read_gpus,
)

H100 = "580.95.05, NVIDIA H100 80GB HBM3, 81559, {used}, {ecc}, {lanes}, 16"
WELL = H100.format(used=4, ecc=0, lanes=16)

NVLINK = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-f2a1)
\t Link 0: 26.562 GB/s
\t Link 1: 26.562 GB/s
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-77b0)
\t Link 0: 26.562 GB/s
\t Link 1: <inactive>
GPU 2: NVIDIA H100 80GB HBM3 (UUID: GPU-11c5)
\t Link 0: 26.562 GB/s
\t Link 1: 26.562 GB/s
"""

DMESG = """\
[   12.1] NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.95.05
[ 9042.7] NVRM: Xid (PCI:0000:3b:00): 31, pid=2211, name=python, Ch 00000008, intr 00000000. MMU Fault
[ 9100.0] NVRM: Xid (PCI:0000:5d:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
[ 9100.1] NVRM: Xid (PCI:0000:5d:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
"""


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a script of that name into PATH."""

    def install(script: str, name: str = "nvidia-smi") -> None:
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return install


@pytest.mark.parametrize(
    ("script", "count", "reason"),
    [
        (f"printf '{WELL}\\n{WELL}\\n'", 2, None),
        ("echo 'GPU is lost' >&2; exit 15", 0, "nvidia-smi failed: GPU is lost"),
        (
            "echo No devices",
            0,
            "nvidia-smi failed: not a line of 7 values: No devices",
        ),
        ("sleep 60", 0, "nvidia-smi did not answer within 0.5 s"),
    ],
)
def test_gpus_are_counted_without_cuda(nvidia_smi, monkeypatch, script, count, reason):
    nvidia_smi(script)
    monkeypatch.setattr(gpu_state, "NVIDIA_SMI_LIMIT_S", 0.5 if reason and "0.5" in reason else 30.0)
    gpus, why = read_gpus()
    assert (len(gpus), why) == (count, reason)
    assert {gpu.driver for gpu in gpus} == ({"580.95.05"} if count else set())


def test_a_gpu_that_does_not_support_a_field():
    (gpu,) = parse_gpus("535.1, NVIDIA L4, 23034, 0, [N/A], [Not Supported], 16")
    assert gpu == Gpu("535.1", "NVIDIA L4", 23034, 0, None, None, 16)
    assert faults([gpu], mine_alone=True) == []


def test_what_is_wrong_with_a_gpu():
    gpus = parse_gpus(
        "\n".join(
            [
                WELL,
                H100.format(used=72909, ecc=0, lanes=16),
                H100.format(used=4, ecc=2, lanes=16),
                H100.format(used=4, ecc=0, lanes=8),
            ]
        )
    )
    leftover, ecc, lanes = faults(gpus, mine_alone=True)
    assert leftover.startswith("GPU 1 has 71.2 GiB in use before the job starts")
    assert ecc == "GPU 2 counts 2 uncorrected ECC errors: it needs a reset"
    assert lanes == "GPU 3 has 8 of its 16 PCIe lanes"
    assert faults(gpus, mine_alone=False) == [ecc, lanes]


def test_links():
    assert parse_nvlinks(NVLINK) == [2, 1, 2]
    assert lost_links([2, 1, 2]) == ["GPU 1 has 1 active NVLinks, the others 2"]
    assert parse_nvlinks("GPU 0: NVIDIA L4 (UUID: GPU-1)\n\t Link 0: <inactive>\n") == []
    assert lost_links([]) == []


def test_fatal_xids_are_told_once_and_programs_own_are_not():
    assert parse_xids(DMESG) == [f"Xid 79 ({FATAL_XIDS[79]}) of GPU 0000:5d:00 in the kernel's log"]


def test_the_node_check_says_it_all(nvidia_smi):
    nvidia_smi(
        f'case "$1" in nvlink) printf "{NVLINK.encode("unicode_escape").decode()}";; '
        f"*) printf '{WELL}\\n{H100.format(used=72909, ecc=0, lanes=16)}\\n';; esac"
    )
    nvidia_smi("printf 'NVRM: Xid (PCI:0000:5d:00): 79, pid=1\\n'", name="dmesg")
    said = health.NodeHealth("a", 0, 0, {}, {})
    health.ask_gpus(said, expected=2)
    assert said.gpus == 2
    assert [problem.split(" has ")[0] for problem in said.problems] == ["GPU 1", "GPU 1"]
    assert said.versions == {
        "NVIDIA driver": "580.95.05",
        "GPU": "NVIDIA H100 80GB HBM3",
        "active NVLinks": "5",
    }
    assert len(said.notes) == 1
    health.ask_gpus(said, expected=3)
    assert "2 GPUs seen, 3 expected" in said.problems
