"""The plan that a run leaves in its folder, to be read beside what it measured."""

import os
from typing import Any

from igrpo_mcore import device
from igrpo_mcore.config.schema import Config
from igrpo_mcore.planning.gpus import GIB, GPUS, gpu_of_device
from igrpo_mcore.planning.plan import planned_step


def plan_of_run(config: Config, world_size: int) -> dict[str, Any]:
    """Seconds and GiB by phase, planned for this machine's GPU.

    Where there is none, or one that the catalogue lacks, it is planned for an H100, and ``measured_on``
    tells that the two are not comparable. GiB leave out what torch's allocator does not see (the CUDA
    context and NCCL's buffers).
    """
    name = device.gpu_name()
    found = gpu_of_device(name) if name else None
    node = int(os.environ.get("LOCAL_WORLD_SIZE", "8"))
    step = planned_step(config, gpu=found or GPUS["h100-80g"], world=world_size, gpus_per_node=node)
    gib = {p.name: (p.total - p.parts["context"]) / GIB for p in step.memory.phases}
    return {
        "gpu": step.gpu.name,
        "measured_on": name or "a machine without a GPU",
        "comparable": found is not None,
        "fits": step.fits,
        "seconds": {**step.time.phases, "step": step.time.step},
        "gib": gib,
    }
