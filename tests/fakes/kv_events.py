"""An engine's KV events: vLLM 0.32's publisher on real sockets of the loopback, and what answers beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import zmq
import zmq.asyncio
from aiohttp import web

END = (-1).to_bytes(8, "big", signed=True)


class Publisher:
    """Publishes numbered batches, keeps the last `buffer` for replay, and can lose them on the way.

    at_once: how many of a replay get through, as where ZMQ's queue runs over. XPUB is PUB, but says who listens.
    """

    def __init__(self, *, buffer: int = 100, replays: bool = True, at_once: int = 100) -> None:
        self.buffer: deque[tuple[int, bytes]] = deque(maxlen=buffer)
        self.at_once = at_once
        self.replays_asked: list[int] = []
        self.sources_asked = 0
        self.well = True
        self.stamp_s = 1000.0  # the engine's clock
        self._next = 0
        self._context = zmq.asyncio.Context()
        self._pub = self._context.socket(zmq.XPUB)
        self._router = self._context.socket(zmq.ROUTER)
        self._task: asyncio.Task[None] | None = None
        self._pub.bind("tcp://127.0.0.1:*")
        self._router.bind("tcp://127.0.0.1:*")
        endpoints = [socket.getsockopt_string(zmq.LAST_ENDPOINT) for socket in (self._pub, self._router)]
        self.source: dict[str, Any] = {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "endpoint": endpoints[0].replace("127.0.0.1", "[::ffff:127.0.0.1]"),
            "replay_endpoint": endpoints[1] if replays else None,
            "buffer_steps": buffer,
            "topic": "",
        }
        self.sources: Any = {"0": self.source}

    async def heard(self, *, any_longer: bool = True) -> None:
        """Return when somebody listens, or no longer."""
        async with asyncio.timeout(20):
            assert await self._pub.recv() == bytes([any_longer])

    async def publish(self, *events: dict[str, Any], lose: bool = False, payload: bytes | None = None) -> int:
        """One batch, which got lost on the way or not. payload: another than the events' own. Returns its number."""
        number, self._next = self._next, self._next + 1
        self.stamp_s += 1
        payload = payload if payload is not None else msgspec.msgpack.encode([self.stamp_s, list(events), 0])
        self.buffer.append((number, payload))
        if not lose:
            await self.send(b"", number.to_bytes(8, "big"), payload)
        return number

    async def send(self, *frames: bytes) -> None:
        """A message, whatever it is."""
        await self._pub.send_multipart(frames)

    def restart(self) -> None:
        """Another engine at the same ports: it has told nothing yet."""
        self._next = 0
        self.buffer.clear()

    async def _replay(self) -> None:
        while True:
            client, empty, start = await self._router.recv_multipart()
            assert empty == b""
            assert len(start) == 8
            first = int.from_bytes(start, "big")
            self.replays_asked.append(first)
            for number, payload in [one for one in self.buffer if one[0] >= first][: self.at_once]:
                await self._router.send_multipart([client, b"", b"", number.to_bytes(8, "big"), payload])
            await self._router.send_multipart([client, b"", b"", END, b""])

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """The URL of its API."""

        app = web.Application()

        async def sources(_: web.Request) -> web.Response:
            self.sources_asked += 1
            return web.json_response(self.sources)

        async def health(_: web.Request) -> web.Response:
            return web.Response(status=200 if self.well else 503)

        app.router.add_get("/kv_event_sources", sources)
        app.router.add_get("/health", health)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        replaying = asyncio.create_task(self._replay())
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            replaying.cancel()
            await asyncio.gather(replaying, return_exceptions=True)
            self._context.destroy(linger=0)
            await runner.cleanup()


def stored(
    tokens: Sequence[int], after: Sequence[int] = (), *, block_tokens: int = 16, keys: Any = None, **other: Any
) -> dict[str, Any]:
    """BlockStored for `tokens` that follow `after`, as vLLM 0.32 writes it. keys: of every block."""
    whole = [*after, *tokens]
    ends = range(len(after) + block_tokens, len(whole) + 1, block_tokens)
    return {
        "type": "BlockStored",
        "block_hashes": [theirs(whole[:end]) for end in ends],
        "parent_block_hash": theirs(after) if after else None,
        "token_ids": list(tokens),
        "block_size": block_tokens,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        "extra_keys": keys or [None] * len(ends),
        "group_idx": 0,
        "kv_cache_spec_kind": "full_attention",
        **other,
    }


def removed(*prefixes: Sequence[int], **other: Any) -> dict[str, Any]:
    """BlockRemoved for the last block of each prefix."""
    return {
        "type": "BlockRemoved",
        "block_hashes": [theirs(one) for one in prefixes],
        "medium": "GPU",
        "group_idx": 0,
    } | other


def cleared() -> dict[str, Any]:
    """AllBlocksCleared."""
    return {"type": "AllBlocksCleared"}


def theirs(prefix: Sequence[int]) -> int:
    """A hash of the engine's own kind: 64 bits, unsigned."""
    return hash(tuple(prefix)) & (1 << 64) - 1
