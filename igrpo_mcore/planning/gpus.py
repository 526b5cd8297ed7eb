"""GPUs that a plan can be made for."""

from dataclasses import dataclass

from igrpo_mcore.errors import UserError

GIB = 2**30


@dataclass(frozen=True)
class GPU:
    """One accelerator. Rates are peaks of the data sheet; ``Efficiency`` says what of them is reached.

    ``memory_gib`` is what torch reports as total (its out-of-memory message), less than the data
    sheet says. ``nvlink_gb_s`` and ``network_gb_s`` are GB/s of one GPU in one direction,
    as ``host_gb_s`` (PCIe);
    ``engine_prefill_tokens`` is vLLM 0.32's default ``max_num_batched_tokens`` on it.
    """

    name: str
    memory_gib: float
    tflops_bf16: float
    memory_gb_s: float
    nvlink_gb_s: float
    network_gb_s: float
    host_gb_s: float
    engine_prefill_tokens: int
    device_names: tuple[str, ...]

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gib * GIB)


# NVIDIA data sheets, SXM versions, dense bf16; network: HDR 200 Gb/s for A100, NDR 400 Gb/s since;
# host link: PCIe 4.0 x16 for A100, 5.0 x16 since
GPUS = {
    gpu.name: gpu
    for gpu in (
        GPU("a100-80g", 79.1, 312, 2039, 300, 25, 32, 8192, ("A100-SXM4-80GB", "A100 80GB")),
        GPU("h100-80g", 79.1, 989, 3350, 450, 50, 64, 16384, ("H100 80GB",)),
        GPU("h200", 139.8, 989, 4800, 450, 50, 64, 16384, ("H200",)),
        GPU("b200", 178.3, 2250, 7670, 900, 50, 64, 16384, ("B200",)),
    )
}


def gpu_named(name: str) -> GPU:
    """The GPU of the catalogue.

    Raises:
        UserError: no such GPU.
    """
    if name not in GPUS:
        raise UserError(f"there is no GPU {name!r} to plan for; choose one of {', '.join(sorted(GPUS))}")
    return GPUS[name]


def gpu_of_device(device_name: str) -> GPU | None:
    """The GPU that ``torch.cuda.get_device_name()`` names ("NVIDIA H100 80GB HBM3"), if catalogued."""
    return next((g for g in GPUS.values() if any(n in device_name for n in g.device_names)), None)
