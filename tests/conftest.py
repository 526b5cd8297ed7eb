"""How `make test` spreads the tests over two workers (pytest -n 2)."""

from pathlib import Path

import pytest

LONGEST_FIRST = ("trainer/test_learning", "slurm", "trainer/test_runs", "weights/test_weights_in_ranks")


def _group(path: Path) -> str:
    """Tests that stay together: a file's, whose fixtures are whole runs, and Slurm's, who share one Slurm."""
    return "slurm" if path.parent.name == "slurm" else f"{path.parent.name}/{path.stem}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item.path)))
    # begun last, they would keep one worker busy alone
    order = {group: place for place, group in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(_group(item.path), len(order)))
