"""The client for who does not await: what keeps it, and what closing it in one thread does to another."""

from __future__ import annotations

import httpx

from hyperpd.client import Client, Gateway
from hyperpd.sse import encode


def test_a_stream_keeps_its_client() -> None:
    content = b"".join(encode(event) for event in ('{"choices": [{"text": "a"}]}', "[DONE]"))
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=content))
    pieces = Client(Gateway("http://gateway", transport=transport), model="m").stream("x")  # nobody else has it
    assert list(pieces) == ["a"]
