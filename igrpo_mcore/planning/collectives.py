"""Seconds of collectives by ring: what each GPU sends over its slowest link, and a latency each."""

from igrpo_mcore.planning.efficiency import Efficiency
from igrpo_mcore.planning.gpus import GPU


def link_rate(gpu: GPU, ranks: int, gpus_per_node: int, efficiency: Efficiency) -> float:
    """Bytes a second and GPU among ``ranks`` neighbours: NVLink inside a node, the network beyond."""
    peak = gpu.nvlink_gb_s if ranks <= gpus_per_node else gpu.network_gb_s
    return peak * 1e9 * efficiency.link


def gather_seconds(size: float, ranks: int, rate: float, efficiency: Efficiency) -> float:
    """All-gather to, or reduce-scatter from, ``size`` bytes on each rank: (n - 1) / n of them are sent."""
    if ranks == 1:
        return 0.0
    return efficiency.collective_s + (ranks - 1) / ranks * size / rate


def reduce_seconds(size: float, ranks: int, rate: float, efficiency: Efficiency) -> float:
    """All-reduce of ``size`` bytes: twice the volume of an all-gather (Patarasuk and Yuan, 2009)."""
    if ranks == 1:
        return 0.0
    return efficiency.collective_s + 2 * (ranks - 1) / ranks * size / rate
