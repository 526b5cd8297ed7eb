"""A plan for the eye (bars against the GPU's memory) and for programs (JSON)."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from igrpo_mcore.config.stages import stages_of
from igrpo_mcore.planning.advice import Change
from igrpo_mcore.planning.assumptions import assumptions, epoch_line
from igrpo_mcore.planning.comparison import ScheduleTime, own_schedule
from igrpo_mcore.planning.epoch import Epoch
from igrpo_mcore.planning.gpus import GIB
from igrpo_mcore.planning.limits import Limits
from igrpo_mcore.planning.plan import PlannedStep
from igrpo_mcore.planning.search import SLACK, Proposal, gpu_seconds

BAR_WIDTH = 50
# part -> (letter, colour); letters keep a bar readable without colour
PARTS = {
    "parameters": ("P", "blue"),
    "gradients": ("G", "cyan"),
    "optimizer": ("O", "magenta"),
    "context": ("C", "bright_black"),
    "engine weights": ("W", "yellow"),
    "engine activations": ("a", "bright_yellow"),
    "engine graphs": ("g", "bright_black"),
    "KV cache": ("K", "green"),
    "buckets": ("B", "bright_magenta"),
    "reload copy": ("R", "bright_cyan"),
    "activations": ("A", "red"),
    "logits": ("L", "bright_red"),
    "workspace": ("w", "bright_blue"),
}


@dataclass(frozen=True)
class Report:
    """All that is printed of a plan. ``changes`` are for one that does not fit; ``proposals`` none where
    no search was asked for; ``epoch`` none where the number of problems is not known; ``schedules`` are
    empty for plain GRPO."""

    recipe: str
    step: PlannedStep
    limits: Limits
    changes: list[Change]
    proposals: list[Proposal] | None
    epoch: Epoch | None
    schedules: list[ScheduleTime]
    notes: list[str]


def gib(size: float) -> str:
    return f"{size / GIB:.1f}"


def bar(parts: dict[str, int], capacity: int, width: int = BAR_WIDTH) -> Text:
    """Parts drawn to scale, the capacity as the full width; what is beyond it ends in ``!``."""
    text, drawn, total = Text(), 0, 0
    for part, size in parts.items():
        letter, colour = PARTS[part]
        total += size
        end = min(width, round(total / capacity * width))
        text.append(letter * max(0, end - drawn), style=colour)
        drawn = max(drawn, end)
    text.append("·" * (width - drawn), style="bright_black")
    text.append("!" if total > capacity else "|", style="bold red" if total > capacity else "")
    return text


def _phases(step: PlannedStep) -> Table:
    memory = step.memory
    table = Table(title=f"Memory of the fullest GPU by phase, GiB (full bar: {gib(memory.capacity)})")
    table.add_column("phase", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("GiB", justify="right", no_wrap=True)
    table.add_column("free", justify="right", no_wrap=True)
    for phase in memory.phases:
        name = phase.name + (" (peak)" if phase is memory.peak else "")
        free = gib(memory.capacity - phase.total)
        table.add_row(name, bar(phase.parts, memory.capacity), gib(phase.total), free)
    return table


def _parts(step: PlannedStep) -> Table:
    table = Table(title="Parts, GiB")
    table.add_column("part")
    for phase in step.memory.phases:
        table.add_column(phase.name, justify="right")
    for part, (letter, colour) in PARTS.items():
        sizes = [phase.parts.get(part, 0) for phase in step.memory.phases]
        if any(sizes):
            table.add_row(
                Text(f"{letter} {part}", style=colour), *(f"{s / GIB:.2f}" if s else "" for s in sizes)
            )
    return table


def _times(step: PlannedStep) -> Table:
    time = step.time
    table = Table(title="A step, seconds; beside it its share of the checkpoints")
    values = time.phases | {"step": time.step, "checkpoint": time.checkpoint}
    for name in values:
        table.add_column(name, justify="right")
    table.add_row(*(f"{value:.1f}" for value in values.values()))
    return table


def _schedules(step: PlannedStep, times: list[ScheduleTime]) -> Table:
    budget = sum(stage.num_samples for stage in stages_of(step.config.rollout))
    table = Table(
        title=f"Rollouts by schedule, seconds, and x GRPO at the same {budget} completions a prompt"
    )
    table.add_column("rollout.schedule")
    for name in ("rollout", "x GRPO", "step", "x GRPO"):
        table.add_column(name, justify="right")
    mine = own_schedule(step.config)
    for time in times:
        rollout, whole = time.over(times[0])
        name = time.name + (" (this recipe)" if time.name == mine else "")
        table.add_row(name, f"{time.rollout:.1f}", f"{rollout:.2f}", f"{time.step:.1f}", f"{whole:.2f}")
    return table


def _limits(found: Limits) -> Table:
    table = Table(title="Largest that still fit, each alone")
    table.add_column("option")
    table.add_column("value", justify="right")

    def show(value: Any) -> str:
        return "none fits" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.2f}"

    table.add_row("train.micro_batch_tokens", show(found.micro_batch_tokens))
    table.add_row("prompt + completion, tokens", show(found.sequence_tokens))
    table.add_row("rollout.memory_fraction", show(found.memory_fraction))
    table.add_row("rollout.memory_fraction, at least", show(found.smallest_fraction))
    return table


def _proposals(title: str, rows: list[tuple[list[str], PlannedStep]]) -> Table:
    table = Table(title=title)
    for name in ("GPUs", "peak GiB", "free", "step s", "GPU-s"):
        table.add_column(name, justify="right")
    table.add_column("overrides", overflow="fold")
    for overrides, step in rows:
        memory = step.memory
        table.add_row(
            str(step.layout.world),
            gib(memory.peak.total),
            gib(memory.margin),
            f"{step.time.step:.0f}",
            f"{gpu_seconds(step):.0f}",
            " ".join(overrides),
        )
    return table


def verdict(step: PlannedStep) -> str:
    """One sentence."""
    memory = step.memory
    if memory.problem:
        return f"Does not start: {memory.problem}."
    peak = f"peak in {memory.peak.name}, {gib(memory.peak.total)} of {gib(memory.capacity)} GiB"
    return f"Fits: {peak}." if step.fits else f"Does not fit: {peak}, {gib(-memory.margin)} GiB over."


def print_plan(console: Console, report: Report) -> None:
    """The whole report; plain text where ``console`` is no terminal."""
    step, proposals = report.step, report.proposals
    layout, model = step.layout, step.model

    def line(text: str, **options: Any) -> None:
        console.print(text, highlight=False, **options)

    line(f"{report.recipe}: {model.path}, {model.table.parameters / 1e9:.2f} B parameters ({model.source})")
    line(
        f"{layout.nodes} x {min(layout.world, layout.gpus_per_node)} {step.gpu.name}: tp {layout.tp}, "
        f"pp {layout.pp}, vpp {layout.vpp}, dp {layout.dp}, sp {str(layout.sp).lower()}; "
        f"{layout.engines} engines of tp {layout.rollout_tp}; recompute {step.config.model.recompute}"
    )
    for note in report.notes:
        line(f"Note: {note}")
    for table in (_phases(step), _parts(step), _times(step)):
        console.print(table)
    if report.schedules:
        console.print(_schedules(step, report.schedules))
    line(epoch_line(report.epoch, layout.world))
    for assumed in assumptions(step):
        line(f"Assumed {assumed}.")
    console.print(_limits(report.limits))
    line(verdict(step), style="green" if step.fits else "bold red")
    if not step.fits:
        rows = [(c.proposal.overrides(), c.step) for c in report.changes]
        title = "What to change, each alone is enough"
        console.print(_proposals(title, rows) if rows else "No layout of up to 32 times the GPUs fits.")
    if proposals is not None:
        rows = [(p.overrides(), p.step) for p in proposals]
        title = f"Cheapest layouts of {layout.world} GPUs that leave {SLACK:.0%} of the memory free"
        console.print(_proposals(title, rows) if rows else "No layout fits.")


def to_json(report: Report) -> str:
    """The same for programs; bytes and seconds."""
    step, memory = report.step, report.step.memory

    def brief(overrides: list[str], planned: PlannedStep) -> dict[str, Any]:
        return {
            "overrides": overrides,
            "gpus": planned.layout.world,
            "peak_bytes": planned.memory.peak.total,
            "margin_bytes": planned.memory.margin,
            "step_s": planned.time.step,
            "gpu_s": gpu_seconds(planned),
        }

    def brief_schedule(time: ScheduleTime, grpo: ScheduleTime) -> dict[str, Any]:
        rollout, whole = time.over(grpo)
        return asdict(time) | {"rollout_over_grpo": rollout, "step_over_grpo": whole}

    content: dict[str, Any] = {
        "recipe": report.recipe,
        "model": {
            "path": step.model.path,
            "source": step.model.source,
            "parameters": step.model.table.parameters,
        },
        "gpu": asdict(step.gpu),
        "layout": asdict(step.layout) | {"world": step.layout.world, "nodes": step.layout.nodes},
        "fits": step.fits,
        "verdict": verdict(step),
        "peak_phase": memory.peak.name,
        "margin_bytes": memory.margin,
        "capacity_bytes": memory.capacity,
        "phases": {
            p.name: {"total_bytes": p.total, "stage": p.stage, "parts_bytes": p.parts} for p in memory.phases
        },
        "lengths": asdict(step.lengths),
        "efficiency": asdict(step.efficiency),
        "seconds": asdict(step.time) | {"step": step.time.step},
        "epoch": asdict(report.epoch) if report.epoch else None,
        "schedules": [brief_schedule(t, report.schedules[0]) for t in report.schedules],
        "limits": asdict(report.limits),
        "notes": report.notes,
        "changes": [brief(c.proposal.overrides(), c.step) for c in report.changes],
    }
    if report.proposals is not None:
        content["search"] = [brief(p.overrides(), p.step) for p in report.proposals]
    return json.dumps(content, indent=2)
