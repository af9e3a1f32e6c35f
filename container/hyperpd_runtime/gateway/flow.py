"""One request: choose, prefill, hand off, decode, relay."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from hyperpd.errors import DecodeFailed, HandoffFailed, PrefillFailed
from hyperpd.recipe import Recipe
from hyperpd.sse import Decoder, encode
from hyperpd_runtime.gateway import handoff, split, telemetry
from hyperpd_runtime.gateway.guard import Admitted
from hyperpd_runtime.gateway.handoff import Ticket
from hyperpd_runtime.gateway.pool import Member, Pair, Pool
from hyperpd_runtime.gateway.telemetry import Record

# A read after the lease's end gives wrong text with HTTP 200, so both bounds count from the moment
# the prefill request was sent.
_TICKET_AGE = 0.6  # of the lease: an older ticket is not used
_FIRST_EVENT = 0.9  # of the lease: decode must have answered by then
_CANARY_TIMEOUT_S = 60
_DONE = b"data: [DONE]"
_NETWORK = (aiohttp.ClientError, TimeoutError, ConnectionError)


class EngineRefused(Exception):
    """The engine said 4xx; its answer goes to the client as it is."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(slots=True)
class Answer:
    """What goes back: `first` has been read and looked at, `rest` is relayed unparsed."""

    status: int
    content_type: str
    first: bytes
    rest: AsyncIterator[bytes] | None = None


class Flow:
    """The way of a request through the pool. One per gateway."""

    def __init__(self, session: aiohttp.ClientSession, pool: Pool, recipe: Recipe) -> None:
        self._session = session
        self._pool = pool
        self._model = recipe.model.name
        self._lease_s = recipe.kv_transfer.lease_s
        self._canary_tokens = recipe.kv_transfer.block_size_tokens * 3 // 2
        self._background: set[asyncio.Task[None]] = set()

    async def run(self, request: Admitted, record: Record) -> Answer:
        """Answer one request. Raises RequestError; cancelling it cancels what runs upstream."""
        record.why = request.why
        try:
            if request.how == "split":
                return await self._split(request, record)
            decode = self._pool.pick()
            record.decode = decode.name
            pair, ticket = await self._prefill(request, decode, record)
            return await self._decode(request, decode, pair, ticket, record)
        except EngineRefused as refused:
            return refused.answer

    async def _split(self, request: Admitted, record: Record) -> Answer:
        parts = split.split(request)
        answers = await asyncio.gather(*(self.run(part, record) for part in parts))
        record.why = request.why
        for answer in answers:
            if answer.status != 200:
                return answer
        joined = split.join([json.loads(answer.first) for answer in answers])
        return Answer(200, "application/json", json.dumps(joined).encode())

    async def _prefill(self, request: Admitted, decode: Member, record: Record) -> tuple[Pair | None, Ticket | None]:
        """A ticket for `decode`; None where decode has to compute the prompt itself."""
        record.mode = "pd" if self._pool.disaggregated else "aggregated"
        if not self._pool.disaggregated:
            return None, None
        if request.how == "decode_only":
            record.mode = "decode_only"
            return None, None
        pair: Pair | None = None
        for _ in range(2):
            pair = self._pool.pair_for(decode, avoid=pair)
            if pair is None:
                break
            record.prefill = pair.prefill.name
            try:
                ticket = await self._prefill_leg(request.path, request.body, request.chat, pair.prefill)
            except (PrefillFailed, HandoffFailed, *_NETWORK) as error:
                record.fault(getattr(error, "code", "prefill_unreachable"), str(error) or type(error).__name__)
                continue
            record.prefill_s = time.monotonic() - ticket.sent_s
            telemetry.PREFILL_S.observe(record.prefill_s)
            if record.prefill_s <= _TICKET_AGE * self._lease_s:
                return pair, ticket
            self._release(ticket, decode)
            record.fault("ticket_old", f"{record.prefill_s:.1f} s")
            break
        record.recompute("no_proven_pair" if pair is None else "prefill_failed")
        return None, None

    async def _prefill_leg(self, path: str, body: dict[str, Any], chat: bool, prefill: Member) -> Ticket:
        sent_s = time.monotonic()
        async with self._post(prefill, path, handoff.prefill_body(body, chat=chat)) as response:
            raw = await response.read()
            if 400 <= response.status < 500:
                raise EngineRefused(Answer(response.status, response.content_type, raw))
            if response.status != 200:
                raise PrefillFailed(f"{prefill.name} answered {response.status}")
            return handoff.ticket(json.loads(raw), sent_s)

    async def _decode(
        self, request: Admitted, decode: Member, pair: Pair | None, ticket: Ticket | None, record: Record
    ) -> Answer:
        if ticket and pair:
            deadline_s = _FIRST_EVENT * self._lease_s - ticket.age_s(time.monotonic())
            try:
                async with asyncio.timeout(deadline_s):
                    return await self._decode_leg(request, decode, ticket, record)
            except (DecodeFailed, *_NETWORK) as error:
                # Same decode without the ticket first: that works even when the pair is dead.
                record.fault("first_event_late" if isinstance(error, TimeoutError) else "decode_failed", str(error))
                pair.doubt(f"handoff failed: {error or type(error).__name__}")
                self._release(ticket, decode)
                record.recompute("handoff_failed")
        try:
            return await self._decode_leg(request, decode, None, record)
        except _NETWORK as error:
            raise DecodeFailed(f"{decode.name}: {error or type(error).__name__}; try again") from error

    async def _decode_leg(self, request: Admitted, decode: Member, ticket: Ticket | None, record: Record) -> Answer:
        """Open decode and look at its first event. An early cancel gives the ticket back."""
        try:
            response = await self._post(decode, request.path, handoff.decode_body(request.body, ticket))
        except asyncio.CancelledError:
            if ticket:
                self._release(ticket, decode)
            raise
        try:
            stream = request.stream and response.status == 200
            first = await _first_event(response) if stream else await response.read()
            record.first_event()
            if 400 <= response.status < 500:
                raise EngineRefused(Answer(response.status, response.content_type, first))
            if response.status != 200 or (stream and is_error(first)):
                raise DecodeFailed(f"{decode.name} answered {response.status} with an error")
        except BaseException:
            response.close()
            raise
        if stream:
            return Answer(200, response.content_type, first, _relay(response, first, record))
        return Answer(200, response.content_type, first)

    def _post(self, member: Member, path: str, body: dict[str, Any]) -> Any:
        # A new id for every attempt, ours: a comma in a client's id would stop lease renewal.
        headers = {"X-Request-Id": uuid.uuid4().hex, "Content-Type": "application/json"}
        return self._session.post(member.url + path, data=json.dumps(body).encode(), headers=headers)

    def _release(self, ticket: Ticket, decode: Member) -> None:
        """Give a ticket back in the background: decode refuses the request and tells prefill to free the blocks."""

        async def send() -> None:
            try:
                async with asyncio.timeout(10):
                    async with self._post(decode, "/v1/completions", handoff.release_body(ticket)) as response:
                        await response.read()
                telemetry.RELEASED.inc()
            except _NETWORK as error:
                telemetry.log.warning("event=release_failed worker=%s detail=%r", decode.name, str(error))

        task = asyncio.get_running_loop().create_task(send())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def canary(self, prefill: Member, decode: Member) -> None:
        """Send one small prompt through a pair. Raises when its KV does not arrive."""
        prompt = [random.randrange(3, 250) for _ in range(self._canary_tokens)]
        body = {"model": self._model, "prompt": prompt, "max_tokens": 2, "temperature": 0}
        record = Record(
            request_id=f"canary-{uuid.uuid4().hex[:8]}", mode="canary", prefill=prefill.name, decode=decode.name
        )
        request = Admitted(body, chat=False, how="disaggregate", why="canary")
        try:
            async with asyncio.timeout(_CANARY_TIMEOUT_S):
                ticket = await self._prefill_leg(request.path, body, False, prefill)
                await self._decode_leg(request, decode, ticket, record)
        except EngineRefused as refused:
            raise DecodeFailed(f"canary refused with {refused.answer.status}") from None


async def _first_event(response: aiohttp.ClientResponse) -> bytes:
    """Bytes up to the end of the first event (or of the stream)."""
    read = b""
    async for chunk in response.content.iter_any():
        read += chunk
        if b"\n\n" in read:
            break
    return read


def is_error(events: bytes) -> bool:
    """Whether a stream that just began is vLLM's error event, which comes with HTTP 200."""
    payloads = Decoder().feed(events)
    if not payloads:
        return True  # ended before the first event
    try:
        return "error" in json.loads(payloads[0])
    except ValueError:
        return False


async def _relay(response: aiohttp.ClientResponse, first: bytes, record: Record) -> AsyncIterator[bytes]:
    """The rest of a stream, unparsed. One that ends without its last event is told as an error event."""
    tail = first[-64:]
    try:
        try:
            async for chunk in response.content.iter_any():
                tail = (tail + chunk)[-64:]
                yield chunk
        except _NETWORK as error:
            record.fault("stream_cut", str(error))
        if _DONE in tail:
            record.end("ok")
        else:
            record.fault("stream_cut", "no terminal event")
            record.end("decode_failed")
            yield encode(json.dumps(DecodeFailed("the stream was cut; ask again", code="stream_cut").body()))
    finally:
        response.close()
        record.end("client_left")
