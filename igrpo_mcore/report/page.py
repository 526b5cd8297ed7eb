"""report.html: one self-contained page of a run, finished or not.

``python -m igrpo_mcore.report.page RUN_DIR`` writes it for a run that was killed.
"""

import json
import os
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from omegaconf import OmegaConf

from igrpo_mcore.config.parity_limits import limits_of
from igrpo_mcore.config.schema import DType, ParityConfig
from igrpo_mcore.errors import UserError, cannot_write
from igrpo_mcore.report.charts import draw, draw_phases
from igrpo_mcore.report.panels import panels
from igrpo_mcore.report.plan_table import plan_table
from igrpo_mcore.report.progress import number
from igrpo_mcore.report.records import SAMPLES_FILE, read_metrics, read_records
from igrpo_mcore.report.summary import Change, summarize
from igrpo_mcore.run.folder import CONFIG_FILE, VERSIONS_FILE

PAGE_FILE = "report.html"
TEMPLATE = "page.html.jinja"
FIRST_SAMPLES, LAST_SAMPLES = 2, 4
MAX_TEXT = 6000
"""Characters of a prompt or completion that the page shows; samples.jsonl has all of them."""


@dataclass(frozen=True)
class Chart:
    title: str
    unit: str
    svg: str


def write_report(run_dir: Path) -> Path:
    """Write ``run_dir/report.html`` from the files that are there, and return its path.

    It needs neither a finished run nor all metrics: panels without data are left out. Raises
    ``UserError`` where there is no run folder or the page cannot be written.
    """
    if not run_dir.is_dir():
        raise UserError(f"There is no run folder {run_dir}: give the folder that holds metrics.jsonl.")
    page = run_dir / PAGE_FILE
    write_page(page, TEMPLATE, _content(run_dir))
    return page


def write_page(page: Path, template: str, content: Mapping[str, Any], *folders: Path) -> None:
    """Render a template of this folder, or of ``folders``, whole or not at all.

    Raises:
        UserError: the page cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["change"] = _change
    environment.filters["number"] = number
    environment.filters["cut"] = _cut
    try:
        drawn = page.with_name(f".{page.name}.{os.getpid()}")
        text = environment.get_template(template).render(content)
        drawn.write_text(text, encoding="utf-8", errors="replace")
        drawn.replace(page)  # whole or not at all: a reader may have it open while the run goes on
    except OSError as error:
        raise cannot_write(page, error) from error


def _content(run_dir: Path) -> dict[str, Any]:
    records = read_metrics(run_dir)
    config_text, config = _config(run_dir / CONFIG_FILE)
    limit = _parity_limit(config, on_gpu=any("memory/step_gib" in record for record in records))
    charts = [
        Chart(panel.title, panel.unit, svg)
        for panel in panels(limit)
        if (svg := draw(panel, records)) is not None
    ]
    return {
        "name": run_dir.name,
        "steps_done": records[-1]["step"] if records else 0,
        "steps_planned": config.get("train", {}).get("steps"),
        "model": config.get("model", {}).get("path", "–"),
        "summary": summarize(records),
        "parity_limit": limit,
        "charts": charts,
        "phases": draw_phases(records),
        "plan": plan_table(run_dir, records),
        "samples": _samples(run_dir / SAMPLES_FILE),
        "versions": _versions(run_dir / VERSIONS_FILE),
        "config": config_text,
        "max_text": MAX_TEXT,
    }


def _config(path: Path) -> tuple[str, dict[str, Any]]:
    """The resolved configuration as text and as plain dicts; empty where there is none."""
    if not path.exists():
        return "", {}
    text = path.read_text(encoding="utf-8")
    resolved = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(resolved, dict)
    return text, {str(key): value for key, value in resolved.items()}


def _parity_limit(config: Mapping[str, Any], on_gpu: bool) -> float | None:
    """The quantile's limit that the run was held to; None where no configuration says."""
    dtype = config.get("model", {}).get("dtype")
    if dtype is None:
        return None
    parity = config.get("parity", {})
    options = ParityConfig(
        mean_threshold=parity.get("mean_threshold"), quantile_threshold=parity.get("quantile_threshold")
    )
    return limits_of(options, DType(dtype), on_gpu).quantile


def _versions(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _samples(path: Path) -> list[dict[str, Any]]:
    """The first and the last samples of a run, read without holding all of them."""
    first: list[dict[str, Any]] = []
    last: deque[dict[str, Any]] = deque(maxlen=LAST_SAMPLES)
    for sample in read_records(path):
        (first if len(first) < FIRST_SAMPLES else last).append(sample)
    return [*first, *last]


def _change(change: Change, spec: str) -> str:
    return f"{number(change.first, spec)} → {number(change.last, spec)}"


def _cut(text: str) -> str:
    """The beginning and the end of a long text."""
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]}\n… {len(text) - MAX_TEXT} characters …\n{text[-half:]}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m igrpo_mcore.report.page RUN_DIR")
    try:
        print(write_report(Path(sys.argv[1])))
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
