"""How much of the machine a step used: tokens and FLOP a second and GPU."""

from collections.abc import Mapping, Sequence

from igrpo_mcore.config.schema import DType
from igrpo_mcore.planning.gpus import gpu_of_device
from igrpo_mcore.policy.update_stats import UpdateStats


def throughput(
    sampled: int,
    updates: Sequence[UpdateStats],
    seconds: Mapping[str, float],
    ranks: int,
    gpu_name: str | None,
    dtype: DType,
) -> dict[str, float | None]:
    """Of a step with ``sampled`` completion tokens; ``seconds`` by phase, ``gpu_name`` as the driver says.

    The share of the peak (MFU) is of dense bf16 products, so it is None elsewhere and for a GPU that
    ``planning.gpus`` does not list.
    """
    gpu = gpu_of_device(gpu_name) if gpu_name and dtype == DType.bfloat16 else None
    flops = sum(update.flops for update in updates) / ranks
    teraflops = flops / seconds["update"] / 1e12
    return {
        "tokens_per_s/sampled_per_gpu": sampled / seconds["step"] / ranks,
        "tokens_per_s/trained_per_gpu": sum(u.tokens for u in updates) / seconds["step"] / ranks,
        "time/update_tflops_per_gpu": teraflops,
        "time/update_mfu": teraflops / gpu.tflops_bf16 if gpu else None,
        "time/step_mfu": flops / seconds["step"] / 1e12 / gpu.tflops_bf16 if gpu else None,
    }
