"""When a reader is cut, by a clock that is moved by hand."""

from __future__ import annotations

from typing import Any, cast

import pytest

from hyperpd_runtime.gateway.reader import LINGER_S, STEP_BYTES, Reader, count_all
from tests.container.framing.clock import Clock

MIB = 1 << 20


class _Transport:
    """Holds what the test says, and where it ends."""

    def __init__(self) -> None:
        self.waits_bytes = 0
        self.ended = False

    def get_write_buffer_size(self) -> int:
        return self.waits_bytes

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True


class _Watched:
    def __init__(self, waits_bytes: int) -> None:
        self.clock, self.transport, self.cut = Clock(), _Transport(), list[int]()
        self.transport.waits_bytes = waits_bytes
        self.reader = Reader(cast(Any, self.transport), 60, self.clock.call_later, self.cut.append)

    def take(self, taken_bytes: int) -> None:
        """It takes so much in each time that it has for it, until it is cut or all is taken."""
        while self.transport.waits_bytes and not self.cut:
            self.transport.waits_bytes = max(0, self.transport.waits_bytes - taken_bytes)
            self.clock.pass_(60)


async def test_who_takes_nothing() -> None:
    one = _Watched(MIB)
    one.reader.watch()
    one.clock.pass_(59)
    assert one.cut == []
    one.clock.pass_(1)
    assert one.cut == [MIB]
    one.clock.pass_(3600)
    assert one.cut == [MIB]


async def test_who_takes_a_little_less_than_it_has_to() -> None:
    one = _Watched(MIB)
    one.reader.watch()
    one.take(STEP_BYTES - 1)
    assert (one.cut, one.clock.now_s) == ([MIB - STEP_BYTES + 1], 60)


async def test_how_long_who_drips_holds_what_waits() -> None:
    """The worst: 16 minutes for each MiB at 60 s, 3.2 hours for 12 MiB."""
    one = _Watched(12 * MIB)
    one.reader.watch()
    one.take(STEP_BYTES)
    assert (one.cut, one.clock.now_s / 3600) == ([], 3.2)


async def test_the_last_bytes_are_less_than_a_step() -> None:
    one = _Watched(100)
    one.reader.watch()
    one.transport.waits_bytes = 99
    one.clock.pass_(60)
    assert one.cut == [99]


async def test_who_is_not_watched_any_more() -> None:
    one = _Watched(MIB)
    one.reader.watch()
    one.reader.rest()
    one.clock.pass_(3600)
    assert one.cut == []


@pytest.mark.parametrize("waits_bytes", [0, MIB])
async def test_who_has_all_has_a_moment_to_go(waits_bytes: int) -> None:
    one = _Watched(waits_bytes)
    one.reader.leave(LINGER_S)
    assert one.transport.ended
    one.take(STEP_BYTES)
    one.clock.pass_(LINGER_S - 1)
    assert one.cut == []
    one.clock.pass_(1)
    assert one.cut == [0]


async def test_what_is_added_begins_anew() -> None:
    one = _Watched(STEP_BYTES)
    one.reader.watch()
    one.clock.pass_(59)
    one.transport.waits_bytes = MIB
    one.reader.watch()
    one.clock.pass_(59)
    assert one.cut == []


async def test_a_tls_transport_that_is_not_known_is_said(caplog: pytest.LogCaptureFixture) -> None:
    class Another:
        def get_extra_info(self, name: str) -> object:
            return object() if name == "ssl_object" else None

    for _ in range(2):
        count_all(cast(Any, Another()))
    (said,) = caplog.messages
    assert said.startswith("event=defect")
    assert "Another" in said
