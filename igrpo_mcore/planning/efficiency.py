"""Everything that a plan's times assume of hardware and software, in one place.

docs/plan.md says what each number was fitted to, and which published runs were kept as checks.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Efficiency:
    """Shares of a GPU's peaks (``gpus.GPU``), and seconds that no byte and no FLOP explains."""

    update_flops: float = 0.43
    """Share of the peak FLOP/s in the trainer's forward and backward, collectives not counted. Fitted."""
    prefill_flops: float = 0.45
    """The same of vLLM's prefill, and of decoding where FLOPs bound it. Assumed equal."""
    decode_bandwidth: float = 0.60
    """Share of the memory bandwidth at which a decoding step reads weights and cache. Fitted."""
    decode_step_s: float = 0.003
    """Scheduler, sampler and launches of one decoding step. Fitted."""
    link: float = 0.70
    """Share of NVLink's or the network's bandwidth in large collectives. Assumed."""
    collective_s: float = 10e-6
    """What a collective takes however small."""
    small_link: float = 0.12
    """Share of the bandwidth in small collectives. This and the one above fit vLLM's own all-reduce over 2,
    4 and 8 H100 in the table of sgl-project/sglang#2904 (9 us at 4 KiB; 27, 40 and 45 us at 1 MiB)."""
    ramp_s: float = 50e-6
    """What a collective that reaches ``link`` takes besides. Assumed."""
    optimizer_bandwidth: float = 0.70
    """Share of the memory bandwidth in elementwise passes (optimizer, copies). Assumed."""
    host_copy: float = 0.70
    """Share of the host link in copies of page-locked memory. Assumed."""
    tensor_s: float = 0.012
    """Handing one tensor to vLLM in a refit: names, messages, its loader. Fitted."""
    wake_s: float = 1.0
    """vLLM's wake-up; its sleep-mode article measures 0.8 to 2.6 s at level 2."""
    sleep_s: float = 0.5
    """vLLM's sleep. Assumed."""
    reward_s: float = 0.01
    """One completion's rewards in a worker. Assumed."""
    save_gb_s: float = 2.0
    """GB/s at which a checkpoint is gathered and written, all ranks together. Assumed."""
    start_s: float = 180.0
    """Imports, process groups, engine start with graph capture. Assumed."""
    read_gb_s: float = 1.0
    """GB/s at which the weights are read at the start. Assumed."""
