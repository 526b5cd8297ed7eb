"""The largest and the smallest of what every rank measured: a straggler, a rank short of memory."""

from igrpo_mcore import device
from igrpo_mcore.collective import gather_objects
from igrpo_mcore.run.phases import Phases


def rank_spread(phases: Phases) -> dict[str, float | None]:
    """``time/engine_…`` and ``memory/…`` over all ranks, the same on each. Collective.

    ``time/engine_…`` is what an engine took for its own prompts, waiting for other engines left out.
    """
    mine = {"memory/rss": device.resident_gib(), "time/engine": phases.seconds["engine"]}
    if "step" in phases.peak_bytes:
        mine["memory/step"] = phases.peak_bytes["step"] / 2**30
    ranks = gather_objects(mine)
    spread: dict[str, float | None] = {}
    for name in mine:
        unit = "s" if name.startswith("time/") else "gib"
        values = [rank[name] for rank in ranks]
        spread |= {f"{name}_max_{unit}": max(values), f"{name}_min_{unit}": min(values)}
    return spread
