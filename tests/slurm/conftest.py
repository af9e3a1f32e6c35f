from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Slurm, missing, slurm

_left_out: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("slurm")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for why in _left_out:
        terminalreporter.write_line(f"NOT RUN: slurm: {why}", red=True)


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A controller and two nodes, the same for all tests."""
    if why := missing():
        if why not in _left_out:
            _left_out.append(why)
        pytest.skip(why)
    with slurm(tmp_path_factory.mktemp("slurm")) as made:
        yield made
