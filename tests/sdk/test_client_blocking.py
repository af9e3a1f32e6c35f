"""The client for who does not await: what keeps it, and what closing it in one thread does to another."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest

from hyperpd.client import Client, Gateway
from hyperpd.sse import encode


def test_a_stream_keeps_its_client() -> None:
    content = b"".join(encode(event) for event in ('{"choices": [{"text": "a"}]}', "[DONE]"))
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=content))
    pieces = Client(Gateway("http://gateway", transport=transport), model="m").stream("x")  # nobody else has it
    assert list(pieces) == ["a"]


class Closing(Gateway):
    """Answers nothing; while it closes, another thread asks."""

    def __init__(self) -> None:
        super().__init__("http://gateway", transport=httpx.MockTransport(lambda _: httpx.Response(400)))
        self.client = Client(self, model="m")
        self.refused = threading.Event()

    def _ask(self) -> None:
        with pytest.raises(RuntimeError, match="the client is closed"):
            self.client.complete("x")
        self.refused.set()

    async def close(self) -> None:
        await asyncio.to_thread(self._ask)
        await super().close()


def test_nothing_begins_once_closing_began() -> None:
    """It could come after the loop's last turn, and whoever waits for it would wait for ever."""
    way = Closing()
    way.client.close()
    assert way.refused.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "hyperpd-client"]
