from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.image.tools import Container, Tools, missing

_left_out: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for why in _left_out:
        terminalreporter.write_line(f"NOT RUN: image: {why}", red=True)


@pytest.fixture(scope="session")
def tools() -> Iterator[Tools]:
    if why := missing():
        _left_out.append(why)
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="hyperpd-image-"))  # podman refuses pytest's longer paths
    try:
        yield Tools(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def base(tools: Tools) -> str:
    tools.wheelhouse()
    return tools.base()


@pytest.fixture(scope="session")
def image(tools: Tools, base: str) -> str:
    code, output = tools.build(base, ENGINE="none", REVISION="abc", SOURCE="here", tag="localhost/hyperpd")
    assert code == 0, output
    return "localhost/hyperpd"


@pytest.fixture
def start(tools: Tools, image: str) -> Iterator[Callable[..., Container]]:
    """Starts a container; what a test leaves running is stopped."""
    started: list[Container] = []

    def start(name: str, *argv: str, engine: bool = True) -> Container:
        started.append(Container(tools, image, name, *argv, engine=engine))
        return started[-1]

    yield start
    for container in started:
        container.stop()
