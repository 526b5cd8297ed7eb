"""How the slow tests are spread over workers (``pytest -n 2 --dist loadgroup``)."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a file stay together, for they share launches; so do those that share one Slurm."""
    for item in items:
        folder = item.path.parent
        group = folder if folder.name == "slurm" else item.path
        item.add_marker(pytest.mark.xdist_group(str(group.relative_to(Path(__file__).parent))))
