"""pass@k against k, one curve an evaluation with its 95 % band."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from igrpo_mcore.evaluation.figures import Evaluation
from igrpo_mcore.report.charts import GRID, INK, PHASE_COLOURS


def draw_pass_at(measured: Sequence[Evaluation], path: Path) -> None:
    """Write a PNG. Raises ``OSError`` where it cannot be written."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    ticks = sorted({int(k) for one in measured for k in one.pass_at})
    for one, colour in zip(measured, PHASE_COLOURS * len(measured), strict=False):
        ks = [int(k) for k in one.pass_at]
        found = list(one.pass_at.values())
        label = f"{one.suite}, step {one.step} ({one.problems} problems x {one.samples})"
        axes.plot(ks, [estimate.value for estimate in found], "o-", color=colour, label=label, markersize=3.5)
        low, high = [estimate.low for estimate in found], [estimate.high for estimate in found]
        axes.fill_between(ks, low, high, color=colour, alpha=0.15, linewidth=0)
        if one.majority is not None:
            axes.axhline(
                one.majority.value,
                color=colour,
                linestyle=":",
                linewidth=1.2,
                label=f"majority of {one.samples}",
            )
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    axes.set_xlabel("k", color=INK)
    axes.set_ylabel("pass@k", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GRID)
    axes.tick_params(colors=INK, labelsize=8)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, format="png", metadata={"Software": None})
