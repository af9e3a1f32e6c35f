from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.real.fleet import Fleet, alive, descendants
from tests.real.recipes import full


@pytest.fixture(scope="session")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Fleet]]:
    """A 1P1D fleet and its aggregated baseline, started together, stopped without leftovers."""
    folder = tmp_path_factory.mktemp("fleets")
    started = [
        Fleet(full("tiny-cpu-1p1d", folder / "a"), folder / "pd", port_offset=1000),
        Fleet(full("tiny-cpu-aggregated", folder / "b"), folder / "aggregated", port_offset=2000),
    ]
    children: list[int] = []
    try:
        pd, aggregated = (fleet.wait() for fleet in started)
        children = [pid for fleet in started for pid in descendants(fleet.process.pid)]
        assert len(children) >= 6
        yield pd, aggregated
    finally:
        codes = [fleet.stop() for fleet in started]
    assert codes == [0, 0]
    assert [pid for pid in children if alive(pid)] == []


@pytest.fixture
def pd(fleets: tuple[Fleet, Fleet]) -> Fleet:
    return fleets[0]


@pytest.fixture
def aggregated(fleets: tuple[Fleet, Fleet]) -> Fleet:
    return fleets[1]


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=120) as client:
        yield client
