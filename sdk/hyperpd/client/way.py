"""What a way in is: it takes a request and opens its answer, of whatever status, as bytes that can be left early."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from hyperpd.client.patience import Timeouts


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the API, whichever way it goes. path: /v1/…. id: the client's, for its log and the gateway's."""

    path: str
    body: bytes | None  # None: GET
    stream: bool
    id: str


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer that has begun. Whoever has it calls `close`, which ends the request upstream where it still runs.

    headers: names in lower case. parts: cut anywhere, never empty; raises RequestError where the rest does not come.
    """

    status: int
    headers: Mapping[str, str]
    parts: AsyncIterator[bytes]
    close: Callable[[], Awaitable[None]]


class Way(Protocol):
    """Where requests go. where: for messages. lists_models: /v1/models is there; else the other side knows its own."""

    where: str
    lists_models: bool

    def next_step(self, status: int) -> str:
        """What to try after an answer of that status; "" where nothing is known."""

    async def open(self, request: Request, timeouts: Timeouts) -> Opened:
        """Send it once. Raises RequestError where no answer began: code "unreachable" where it was never sent."""

    async def close(self) -> None:
        """Close the connections."""
