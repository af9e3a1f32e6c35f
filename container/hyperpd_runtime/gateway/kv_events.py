"""What workers' prefix caches hold, followed by the KV events of their engines (gateway.prefix_view: exact).

An engine publishes numbered batches over ZMQ, and replays its last ones when asked. The sockets have neither key nor
TLS, and tell the tokens of prompts and the tenants' salts: networks must let the gateway alone reach them.

Batches that were missed show as a gap in the numbers, at the next batch or at the next look at a silent worker, and are
asked for again. What can no longer be replayed, or read, is not guessed: the view of that worker begins anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import msgspec
import zmq
import zmq.asyncio
from prometheus_client import Counter, Gauge

from hyperpd.routing.events import EventView, Outcome
from hyperpd_runtime.gateway import telemetry
from hyperpd_runtime.gateway.kv_batches import Reader
from hyperpd_runtime.gateway.member import Member
from hyperpd_runtime.gateway.pool import Pool
from hyperpd_runtime.gateway.routing import Routing
from hyperpd_runtime.gateway.telemetry import described

log = logging.getLogger("hyperpd.gateway")
_LOOK_EVERY_S = 0.5  # for workers that came or went
_ASK_AGAIN_S = 5.0
_ASK_TIMEOUT_S = 3.0
_SILENT_S = 15.0  # then a worker is asked whether there is something new
_REPLAY_TIMEOUT_S = 5.0  # without another batch
_QUEUE_BATCHES = 10_000  # received and not yet read; what comes beyond is a gap
_BATCH_BYTES = 16 << 20  # prompts of a million tokens fit; a larger message ends its connection
_SOCKETS = 16_384  # one for each worker, and one while it replays; ZMQ's own bound is 1023
_END = b"\xff" * 8  # the number after a replay's last batch

BATCHES = Counter(
    "hyperpd_kv_event_batches",
    "Batches of KV events by what became of them: applied, known (had come before), stale (some before it are missing),"
    " unreadable, foreign (no batch at all)",
    ["outcome"],
    registry=telemetry.registry,
)
LOST = Counter(
    "hyperpd_kv_events_lost",
    "Times that what a worker's cache holds had to be forgotten: not_replayed, unreadable, restarted",
    ["why"],
    registry=telemetry.registry,
)
AGE_S = Gauge(
    "hyperpd_kv_events_age_seconds",
    f"Since what a worker's cache holds was last known for certain; an idle worker is asked every {_SILENT_S:.0f} s",
    ["worker"],
    registry=telemetry.registry,
)
LAG_S = Gauge(
    "hyperpd_kv_events_lag_seconds",
    "From the engine's stamp of the last batch until it was taken in, by two machines' clocks",
    ["worker"],
    registry=telemetry.registry,
)
BLOCKS = Gauge(
    "hyperpd_kv_events_blocks",
    "Blocks that a worker's cache holds, by its events",
    ["worker"],
    registry=telemetry.registry,
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where one engine publishes, and where it replays; "" where it does not."""

    events: str
    replay: str


class _Config(msgspec.Struct):
    """What an engine says of its publisher."""

    endpoint: str
    replay_endpoint: str | None = None


_configs = msgspec.json.Decoder(dict[str, _Config])  # by data-parallel rank


class KVEvents:
    """Follows the engines of a pool's healthy workers, and keeps its routing's event views in step."""

    def __init__(self, pool: Pool, session: aiohttp.ClientSession) -> None:
        """pool: of a recipe with an exact prefix view. session: to ask workers where they publish."""
        self._pool = pool
        self._session = session
        self._known: dict[Member, Follower] = {}

    async def watch(self) -> None:
        """Follow all workers, also those to come, for ever; one that hangs holds up no other."""
        context = zmq.asyncio.Context()
        context.set(zmq.MAX_SOCKETS, _SOCKETS)
        running: dict[Member, asyncio.Task[None]] = {}
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    for gone in self._known.keys() - set(self._pool.members):
                        self._known.pop(gone).forget()
                    healthy = {member for member in self._pool.members if member.healthy}
                    for gone in running.keys() - healthy:
                        running.pop(gone).cancel()
                    for new in healthy - running.keys():
                        follower = self._known.setdefault(new, Follower(new, self._pool.routing, self._session))
                        running[new] = tasks.create_task(follower.follow(context))
                    await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            context.destroy(linger=0)


class Follower:
    """One worker's events. What is known of it outlives its being unhealthy, and is checked when it is back."""

    def __init__(self, member: Member, routing: Routing, session: aiohttp.ClientSession) -> None:
        self._member = member
        self._routing = routing
        self._session = session
        self._reader = Reader(routing.router.knowledge.block_tokens)
        self._why = ""  # it cannot be followed
        self._certain_s = time.monotonic()
        AGE_S.labels(member.name).set_function(lambda: time.monotonic() - self._certain_s)
        BLOCKS.labels(member.name).set_function(self._held)

    def forget(self) -> None:
        """The worker has gone."""
        for gauge in (AGE_S, LAG_S, BLOCKS):
            with contextlib.suppress(KeyError):
                gauge.remove(self._member.name)

    async def follow(self, context: zmq.asyncio.Context) -> None:
        """Keep the view in step, until cancelled."""
        while True:
            try:
                source = await self._ask()
                await self._listen(context, source)
            except (aiohttp.ClientError, TimeoutError, ValueError, zmq.ZMQError) as error:
                ours = isinstance(error, ValueError | zmq.ZMQError)
                self._say(str(error) if ours else described(error))
                await asyncio.sleep(_ASK_AGAIN_S)

    async def _ask(self) -> Source:
        """Where the engine publishes: at the worker's own address, whatever it says of hosts. Raises ValueError."""
        member = self._member
        async with self._session.get(
            f"{member.url}/kv_event_sources",
            timeout=aiohttp.ClientTimeout(total=_ASK_TIMEOUT_S),
            server_hostname=member.certified,
            allow_redirects=False,
        ) as answer:
            if answer.status != 200:
                raise ValueError(f"/kv_event_sources answers {answer.status}")
            content = await answer.read()
        try:
            told = _configs.decode(content)
        except ValueError as error:  # msgspec's own, which quote nothing
            raise ValueError(f"/kv_event_sources is not as vLLM's: {error}") from None
        if not told:
            raise ValueError("its engine publishes no KV events; start it with gateway.prefix_view: exact")
        if len(told) > 1:
            raise ValueError(f"its engine has {len(told)} data-parallel ranks, each with a cache of its own")
        (config,) = told.values()
        host = urlsplit(member.url).hostname
        ports = _port(config.endpoint), _port(config.replay_endpoint or "")
        if not ports[0]:
            raise ValueError("its engine publishes at no port of its own")
        return Source(*(f"tcp://{host}:{port}" if port else "" for port in ports))

    def _say(self, why: str) -> None:
        if why != self._why:  # said once, however long it lasts
            self._why = why
            log.log(
                logging.WARNING if why else logging.INFO,
                "event=kv_events worker=%s followed=%s why=%r",
                *(self._member.name, not why, why),
            )

    async def _listen(self, context: zmq.asyncio.Context, source: Source) -> None:
        """Raises ZMQError, as where this process may open no more sockets."""
        with _socket(context, zmq.SUB) as socket:
            socket.setsockopt(zmq.SUBSCRIBE, b"")
            socket.connect(source.events)
            await self._catch_up(context, source)
            if not self._reader.other_block_tokens:
                self._say("")
            while True:
                if await socket.poll(int(_SILENT_S * 1000)):
                    await self._heard(context, source, await socket.recv_multipart())
                else:
                    await self._catch_up(context, source)
                await asyncio.sleep(0)  # as in a replay

    async def _heard(self, context: zmq.asyncio.Context, source: Source, frames: list[bytes]) -> None:
        if len(frames) != 3 or len(frames[1]) != len(_END):
            BATCHES.labels("foreign").inc()
            return
        number, payload = int.from_bytes(frames[1], "big"), frames[2]
        if self._take(number, payload) != "stale":
            return
        await self._catch_up(context, source)
        if self._take(number, payload) == "stale":
            self._lose("not_replayed", number)
            self._take(number, payload)

    def _seat(self) -> tuple[EventView, int] | None:
        """The view, and the worker's index in it; None while routing does not know it."""
        return cast("tuple[EventView, int] | None", self._routing.seat(self._member))

    def _held(self) -> int:
        seat = self._seat()
        return seat[0].blocks_held(seat[1]) if seat else 0

    def _take(self, number: int, payload: bytes) -> Outcome | None:
        """Take a batch in; of one that cannot be read nobody knows which blocks it removed."""
        if not (seat := self._seat()):
            return None
        view, index = seat
        try:
            at_s, events = self._reader.read(payload, self._member.salt)
        except ValueError:  # msgspec's own are
            BATCHES.labels("unreadable").inc()
            if number >= view.reached(index):
                self._lose("unreadable", number + 1)
            return None
        if self._reader.other_block_tokens:
            self._say(f"its engine's blocks have {self._reader.other_block_tokens} tokens; the recipe's have others")
        outcome = view.apply(index, number, at_s, events)
        BATCHES.labels(outcome).inc()
        if outcome == "applied":
            LAG_S.labels(self._member.name).set(time.time() - at_s)
            self._certain_s = time.monotonic()
        return outcome

    def _lose(self, why: str, first: int) -> None:
        """Forget what it holds; the batches from `first` on will say more."""
        self._tell_lost(why, first)
        if seat := self._seat():
            seat[0].lost(seat[1], first)

    def _tell_lost(self, why: str, first: int) -> None:
        LOST.labels(why).inc()
        log.warning("event=kv_events_lost worker=%s why=%s batch=%d", self._member.name, why, first)

    async def _catch_up(self, context: zmq.asyncio.Context, source: Source) -> None:
        """Have replayed what was missed, as far as the engine can.

        It is asked for the last batch that was taken in as well: that one's coming back says that the engine is the
        same still.
        """
        while source.replay and (seat := self._seat()):
            reached = seat[0].reached(seat[1])
            came, ended = await self._replay(context, source, reached)
            if not (seat := self._seat()):
                return
            view, index = seat
            if ended and reached and not came:  # it has told less than was taken in
                self._tell_lost("restarted", 0)
                view.leave(index)
                view.join(index, 0)
            elif ended and view.wanted(index) is None:
                self._certain_s = time.monotonic()
                return
            elif view.reached(index) == reached:  # there is no more to be had
                return

    async def _replay(self, context: zmq.asyncio.Context, source: Source, reached: int) -> tuple[int, bool]:
        """One round: (how many batches came, whether the engine said that these are all). It may leave some out."""
        came = 0
        with _socket(context, zmq.DEALER) as socket:
            socket.connect(source.replay)
            await socket.send_multipart([b"", max(reached - 1, 0).to_bytes(8, "big")])
            while await socket.poll(int(_REPLAY_TIMEOUT_S * 1000)):
                frames = await socket.recv_multipart()
                if len(frames) != 4 or len(frames[2]) != len(_END):
                    BATCHES.labels("foreign").inc()
                    continue
                if frames[2] == _END:
                    return came, True
                number = int.from_bytes(frames[2], "big")
                if not came and number > reached:
                    self._lose("not_replayed", number)
                came += 1
                self._take(number, frames[3])
                await asyncio.sleep(0)  # receiving does not give way while there is something
        return came, False


@contextlib.contextmanager
def _socket(context: zmq.asyncio.Context, kind: int) -> Iterator[Any]:
    socket = context.socket(kind)
    socket.setsockopt(zmq.RCVHWM, _QUEUE_BATCHES)
    socket.setsockopt(zmq.MAXMSGSIZE, _BATCH_BYTES)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
    try:
        yield socket
    finally:
        socket.close(linger=0)


def _port(endpoint: str) -> int | None:
    scheme, _, at = endpoint.partition("://")
    port = at.rpartition(":")[2]
    return int(port) if scheme == "tcp" and port.isdecimal() else None
