"""Seconds of collectives by ring: what each GPU sends over its slowest link, and a latency each."""

from igrpo_mcore.planning.efficiency import Efficiency
from igrpo_mcore.planning.gpus import GPU


def link_peak(gpu: GPU, ranks: int, gpus_per_node: int) -> float:
    """Bytes a second and GPU among ``ranks`` neighbours: NVLink inside a node, the network beyond."""
    return 1e9 * (gpu.nvlink_gb_s if ranks <= gpus_per_node else gpu.network_gb_s)


def _seconds(sent: float, peak: float, e: Efficiency) -> float:
    return e.collective_s + min(sent / (peak * e.small_link), e.ramp_s + sent / (peak * e.link))


def gather_seconds(size: float, ranks: int, peak: float, efficiency: Efficiency) -> float:
    """All-gather to, or reduce-scatter from, ``size`` bytes on each rank: (n - 1) / n of them are sent."""
    return _seconds((ranks - 1) / ranks * size, peak, efficiency) if ranks > 1 else 0.0


def reduce_seconds(size: float, ranks: int, peak: float, efficiency: Efficiency) -> float:
    """All-reduce of ``size`` bytes: twice the volume of an all-gather (Patarasuk and Yuan, 2009)."""
    return _seconds(2 * (ranks - 1) / ranks * size, peak, efficiency) if ranks > 1 else 0.0


def send_seconds(size: float, peak: float, efficiency: Efficiency) -> float:
    """From one rank to another."""
    return _seconds(size, peak, efficiency)
