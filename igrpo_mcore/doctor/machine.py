"""GPUs, links, memory, disks and the hub's cache of this machine."""

import os
import shutil
from pathlib import Path

import psutil

from igrpo_mcore.disk import GIB, existing_parent
from igrpo_mcore.doctor.finding import Finding, fault, note
from igrpo_mcore.gpu_state import Gpu, fatal_xids, faults, lost_links, nvlinks, read_gpus
from igrpo_mcore.health import active_ports

MIN_SHM_GIB = 1.0
"""Docker gives 64 MiB, in which NCCL cannot place its buffers."""


def gpus_here() -> tuple[list[Gpu], list[Finding]]:
    """The GPUs that the driver lists, and what is to be said of them."""
    gpus, reason = read_gpus()
    if not gpus:
        return gpus, [note("GPUs", f"none ({reason}): ranks run on the CPU, over gloo")]
    kinds = sorted({f"{gpu.name}, {gpu.total_mib / 1024:.0f} GiB" for gpu in gpus})
    found = [Finding("GPUs", f"{len(gpus)} x {'; '.join(kinds)}; driver {gpus[0].driver}")]
    broken = faults(gpus, mine_alone=False)
    found += [fault("GPUs", said, "take it out of the job until it was reset") for said in broken]
    busy = [said for said in faults(gpus, mine_alone=True) if said not in broken]
    found += [note("GPUs", said, "end that process, or take another node") for said in busy]
    links = nvlinks()
    found.append(Finding("NVLink", f"{links[0]} links a GPU" if links else "none: GPUs speak over PCIe"))
    found += [fault("NVLink", said, "take that node out until it was reset") for said in lost_links(links)]
    found += [note("kernel's log", said, "nvidia-smi -q, then reset the GPU") for said in fatal_xids()]
    ports = active_ports()
    found.append(Finding("InfiniBand or RoCE", f"{ports} active ports"))
    return gpus, found


def torch_sees(gpus: list[Gpu]) -> list[Finding]:
    """Whether torch can use what the driver lists."""
    import torch

    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and not seen:
        return [
            fault(
                "torch and the GPUs",
                f"torch {torch.__version__} sees none of {len(gpus)}",
                "install the gpu extra's torch, or a driver for CUDA "
                f"{torch.version.cuda or 13}; see CUDA_VISIBLE_DEVICES",
            )
        ]
    return [Finding("torch and the GPUs", f"torch sees {seen}")] if gpus else []


def memory_and_disks(run_dir: Path, on_gpu: bool) -> list[Finding]:
    """Host memory, /dev/shm, TMPDIR and the disk of run.dir."""
    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0))
    found = [
        Finding("host", f"{cores} cores, {memory.available / GIB:.0f} of {memory.total / GIB:.0f} GiB free")
    ]
    shm = Path("/dev/shm")
    if shm.is_dir():
        size = shutil.disk_usage(shm).total / GIB
        told = f"{size:.2f} GiB"
        small = on_gpu and size < MIN_SHM_GIB
        found.append(
            fault("/dev/shm", told, "start the container with --ipc=host or --shm-size=16g")
            if small
            else Finding("/dev/shm", told)
        )
    temporary = Path(os.environ.get("TMPDIR", "/tmp"))
    return [*found, disk("TMPDIR", temporary, "TMPDIR"), disk("run.dir", run_dir, "run.dir")]


def disk(what: str, folder: Path, option: str) -> Finding:
    """Free space, and whether it can be written."""
    parent = existing_parent(folder)
    if not os.access(parent, os.W_OK | os.X_OK):
        return fault(what, f"{parent} cannot be written", f"set {option} to a folder that can")
    return Finding(what, f"{shutil.disk_usage(parent).free / GIB:.1f} GiB free for {folder}")


def hub_cache() -> Finding:
    """Where the hub's files lie and whether the hub is asked."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    held = sorted(path.name for path in folder.glob("*--*")) if folder.is_dir() else []
    asked = "offline" if constants.HF_HUB_OFFLINE else "the hub is asked for what is missing"
    told = f"{folder}: {len(held)} repositories; {asked}"
    if not constants.HF_HUB_OFFLINE and not os.access(existing_parent(folder), os.W_OK):
        return fault("hub cache", f"{folder} cannot be written", "set HF_HOME to a folder all nodes share")
    return Finding("hub cache", told)
