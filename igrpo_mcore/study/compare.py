"""``igrpo compare``: runs of several variants and seeds on one page."""

from collections.abc import Sequence
from pathlib import Path

from igrpo_mcore.errors import cannot_write
from igrpo_mcore.study.forest import write_forest
from igrpo_mcore.study.groups import load_groups
from igrpo_mcore.study.markdown import tables
from igrpo_mcore.study.page import write_comparison
from igrpo_mcore.study.rows import rows_of

PAGE_FILE = "compare.html"


def run_compare(
    sources: Sequence[Path], out: Path | None, markdown: Path | None, plot: Path | None = None
) -> None:
    """Write the page, print the tables or write them to ``markdown``; draw held-out accuracy to ``plot``.

    Raises:
        UserError: as ``load_groups`` and ``write_forest``, and where a file cannot be written.
    """
    groups, missing = load_groups(sources)
    title = ", ".join(source.resolve().name for source in sources[:4]) + (" …" if len(sources) > 4 else "")
    page = out or sources[0] / PAGE_FILE
    rows = rows_of(groups)
    write_comparison(page, title, groups, rows, missing)
    text = tables(rows, groups, missing)
    if markdown is None:
        print(text)
    else:
        try:
            markdown.write_text(text, encoding="utf-8")
        except OSError as error:
            raise cannot_write(markdown, error) from error
    if plot is not None:
        write_forest(rows, plot)
    print(f"comparison: {page}")
