"""A plan for the eye (bars against the GPU's memory) and for programs (JSON)."""

import json
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from igrpo_mcore.planning.advice import Change
from igrpo_mcore.planning.gpus import GIB
from igrpo_mcore.planning.limits import Limits
from igrpo_mcore.planning.plan import PlannedStep
from igrpo_mcore.planning.search import Proposal

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
    time, lengths = step.time, step.lengths
    table = Table(
        title=f"A step, seconds (prompts of {lengths.prompt}, completions of {lengths.completion} tokens)"
    )
    values = asdict(time) | {"step": time.step}
    for name in values:
        table.add_column(name, justify="right")
    table.add_row(*(f"{value:.1f}" for value in values.values()))
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
    for name in ("GPUs", "peak GiB", "free", "step s"):
        table.add_column(name, justify="right")
    table.add_column("overrides", overflow="fold")
    for overrides, step in rows:
        memory = step.memory
        table.add_row(
            str(step.layout.world),
            gib(memory.peak.total),
            gib(memory.margin),
            f"{step.time.step:.0f}",
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


def print_plan(
    console: Console,
    recipe: str,
    step: PlannedStep,
    found: Limits,
    changes: list[Change],
    proposals: list[Proposal] | None,
    notes: list[str],
) -> None:
    """The whole report; plain text where ``console`` is no terminal."""
    layout, model = step.layout, step.model
    console.print(
        f"{recipe}: {model.path}, {model.table.parameters / 1e9:.2f} B parameters ({model.source})",
        highlight=False,
    )
    console.print(
        f"{layout.nodes} x {min(layout.world, layout.gpus_per_node)} {step.gpu.name}: tp {layout.tp}, "
        f"pp {layout.pp}, vpp {layout.vpp}, dp {layout.dp}, sp {str(layout.sp).lower()}; "
        f"{layout.engines} engines of tp {layout.rollout_tp}; recompute {step.config.model.recompute}",
        highlight=False,
    )
    for note in notes:
        console.print(f"Note: {note}", highlight=False)
    for table in (_phases(step), _parts(step), _times(step), _limits(found)):
        console.print(table)
    console.print(verdict(step), style="green" if step.fits else "bold red", highlight=False)
    if not step.fits:
        rows = [(c.proposal.overrides(), c.step) for c in changes]
        title = "What to change, each alone is enough"
        console.print(_proposals(title, rows) if rows else "No layout of up to 32 times the GPUs fits.")
    if proposals is not None:
        rows = [(p.overrides(), p.step) for p in proposals]
        console.print(_proposals(f"Best layouts of {layout.world} GPUs", rows) if rows else "No layout fits.")


def to_json(
    recipe: str,
    step: PlannedStep,
    found: Limits,
    changes: list[Change],
    proposals: list[Proposal] | None,
    notes: list[str],
) -> str:
    """The same for programs; bytes and seconds."""
    memory = step.memory

    def brief(overrides: list[str], planned: PlannedStep) -> dict[str, Any]:
        return {
            "overrides": overrides,
            "gpus": planned.layout.world,
            "peak_bytes": planned.memory.peak.total,
            "margin_bytes": planned.memory.margin,
            "step_s": planned.time.step,
        }

    content: dict[str, Any] = {
        "recipe": recipe,
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
        "seconds": asdict(step.time) | {"step": step.time.step},
        "limits": asdict(found),
        "notes": notes,
        "changes": [brief(c.proposal.overrides(), c.step) for c in changes],
    }
    if proposals is not None:
        content["search"] = [brief(p.overrides(), p.step) for p in proposals]
    return json.dumps(content, indent=2)
