from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lifecycle.root import Root, missing

_left_out: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("lifecycle")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for why in _left_out:
        terminalreporter.write_line(f"NOT RUN: lifecycle: {why}", red=True)


@pytest.fixture
def new_root(tmp_path: Path) -> Iterator[Callable[..., Root]]:
    if why := missing():
        if why not in _left_out:
            _left_out.append(why)
        pytest.skip(why)
    roots: list[Root] = []

    def new(name: str = "ml.p5.48xlarge", cluster: str = "Kubernetes", **hardware: int) -> Root:
        roots.append(Root(tmp_path / f"node{len(roots)}"))
        roots[-1].hardware(name, **hardware)
        roots[-1].config(name, cluster)
        return roots[-1]

    yield new
    for root in roots:
        root.close()
