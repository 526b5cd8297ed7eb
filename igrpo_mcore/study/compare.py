"""``igrpo compare``: runs of several variants and seeds on one page."""

from collections.abc import Sequence
from pathlib import Path

from igrpo_mcore.errors import cannot_write
from igrpo_mcore.study.groups import load_groups
from igrpo_mcore.study.markdown import tables
from igrpo_mcore.study.page import rows_of, write_comparison

PAGE_FILE = "compare.html"


def run_compare(sources: Sequence[Path], out: Path | None, markdown: Path | None) -> None:
    """Write the page, print the tables or write them to ``markdown``.

    Raises:
        UserError: as ``load_groups``, and where a file cannot be written.
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
    print(f"comparison: {page}")
