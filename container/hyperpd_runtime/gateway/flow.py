"""One request: choose, prefill, hand off, decode, relay."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from hyperpd.errors import DecodeFailed, HandoffFailed, PrefillFailed, RequestError
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
_STEP_TIMEOUT_S = 30
_EXPIRED_LEASES = "vllm:nixl_num_kv_expired_reqs_total"
_DONE = b"data: [DONE]"
_ERROR = b'data: {"error"'  # inside a text the quotes would be escaped
_NETWORK = (aiohttp.ClientError, TimeoutError, ConnectionError)


class EngineRefused(Exception):
    """The engine said 4xx; its answer goes to the client as it is."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(slots=True)
class Answer:
    """What goes back: `first` has been read and looked at, `rest` is relayed unparsed.

    Whoever takes an answer with a `rest` calls `close`, also when it never began to read.
    """

    status: int
    content_type: str
    first: bytes
    rest: AsyncIterator[bytes] | None = None
    close: Callable[[], None] = lambda: None


class Flow:
    """The way of a request through the pool. One per gateway."""

    def __init__(self, session: aiohttp.ClientSession, pool: Pool, recipe: Recipe) -> None:
        self._session = session
        self._pool = pool
        self._model = recipe.model.name
        # More than one block, where a prompt may be that long.
        self._canary_tokens = min(recipe.kv_transfer.block_size_tokens * 3 // 2, recipe.model.max_len_tokens - 2)
        self._background: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait for the tickets that are being given back."""
        await asyncio.gather(*self._background)

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
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(self.run(part, record)) for part in parts]
        except* RequestError as failed:  # the others are cancelled by then
            raise failed.exceptions[0] from None
        answers = [task.result() for task in running]
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
        why = "no_proven_pair"
        for _ in range(2):
            pair = self._pool.pair_for(decode, avoid=pair)
            if pair is None:
                break
            record.prefill = pair.prefill.name
            why = "prefill_failed"
            try:
                async with asyncio.timeout(_TICKET_AGE * pair.lease_s):
                    ticket = await self._prefill_leg(request.path, request.body, request.chat, pair.prefill)
            except (PrefillFailed, HandoffFailed, aiohttp.ClientError, ConnectionError) as error:
                record.fault(getattr(error, "code", "prefill_unreachable"), str(error) or type(error).__name__)
                continue
            except TimeoutError:  # an old ticket is not used, so there is no point in waiting for one
                why = "ticket_old"
                record.fault(why, f"no prefill answer within {_TICKET_AGE * pair.lease_s:.0f} s")
                break
            record.prefill_s = time.monotonic() - ticket.sent_s
            telemetry.PREFILL_S.observe(record.prefill_s)
            return pair, ticket
        record.recompute(why)
        return None, None

    async def _prefill_leg(self, path: str, body: dict[str, Any], chat: bool, prefill: Member) -> Ticket:
        sent_s = time.monotonic()
        async with self._post(prefill, path, handoff.prefill_body(body, chat=chat)) as response:
            raw = await response.read()
            if 400 <= response.status < 500:
                raise EngineRefused(Answer(response.status, response.content_type, raw))
            if response.status != 200:
                raise PrefillFailed(f"{prefill.name} answered {response.status}")
            try:
                answer = json.loads(raw)
            except ValueError:
                raise PrefillFailed(f"{prefill.name} answered no JSON") from None
            return handoff.ticket(answer, sent_s, prefill.url)

    async def _decode(
        self, request: Admitted, decode: Member, pair: Pair | None, ticket: Ticket | None, record: Record
    ) -> Answer:
        if ticket and pair:
            try:
                return await self._decode_with(ticket, request, decode, pair, record)
            except (DecodeFailed, *_NETWORK) as error:
                # Same decode without the ticket first: that works even when the pair is dead.
                late = isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError)
                record.fault("first_event_late" if late else error_code(error), str(error))
                pair.doubt(f"handoff failed: {error or type(error).__name__}")
                if not late:  # a request that was closed tells prefill by itself
                    self._release(ticket, decode)
                record.recompute("handoff_failed")
        try:
            return await self._decode_leg(request, decode, None, record)
        except _NETWORK as error:
            raise DecodeFailed(f"{decode.name}: {error or type(error).__name__}; try again") from error

    async def _decode_with(
        self, ticket: Ticket, request: Admitted, decode: Member, pair: Pair, record: Record
    ) -> Answer:
        """Decode with a ticket. Raises when its first event may have come from blocks of an expired lease."""
        deadline_s = _FIRST_EVENT * pair.lease_s - ticket.age_s(time.monotonic())
        leg = self._decode_leg(request, decode, ticket, record)
        if request.stream:
            async with asyncio.timeout(deadline_s):
                return await leg
        # A whole answer has no first event. One that takes longer is good if no lease of this
        # prefill worker expired meanwhile; the lease itself has not, at this moment.
        running = asyncio.create_task(leg)
        try:
            done, _ = await asyncio.wait({running}, timeout=deadline_s)
            if done:
                return running.result()
            before = await self._expired_leases(pair.prefill)
            if ticket.age_s(time.monotonic()) >= pair.lease_s:  # it may have expired before that was counted
                raise self._poisoned(decode)
            while not done:
                done, _ = await asyncio.wait({running}, timeout=1)
                if not (pair.prefill.healthy and decode.healthy):
                    raise DecodeFailed("a worker of the pair was lost")
            if await self._expired_leases(pair.prefill) != before:
                raise self._poisoned(decode)
            return running.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    @staticmethod
    def _poisoned(decode: Member) -> DecodeFailed:
        """A late read may have put wrong blocks into decode's prefix cache: a new salt hides them for good."""
        decode.salt = uuid.uuid4().hex
        return DecodeFailed("a lease expired before decode had answered", code="lease_expired")

    async def _expired_leases(self, prefill: Member) -> float:
        """How many leases have expired at `prefill`. It notices only when it steps, so it is given a step first.

        Raises DecodeFailed when it does not say.
        """
        body = {"model": self._model, "prompt": [1], "max_tokens": 3}
        async with asyncio.timeout(_STEP_TIMEOUT_S):
            async with self._post(prefill, "/v1/completions", body) as step:
                await step.read()
            async with self._session.get(f"{prefill.url}/metrics") as response:
                lines = (await response.text()).splitlines()
        counts = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(_EXPIRED_LEASES)]
        if step.status != 200 or response.status != 200 or not counts:
            raise DecodeFailed(f"{prefill.name} does not say how many leases expired")
        return sum(counts)

    async def _decode_leg(self, request: Admitted, decode: Member, ticket: Ticket | None, record: Record) -> Answer:
        """Open decode and look at its first event."""
        sent: dict[str, bool] = {}
        body = handoff.decode_body(request.body, ticket, decode.salt)
        try:
            response = await self._post(decode, request.path, body, sent)
        except asyncio.CancelledError:
            if ticket and not sent:  # else decode sees the connection close and tells prefill
                self._release(ticket, decode)
            raise
        answer: Answer | None = None
        try:
            stream = request.stream and response.status == 200
            first = await _first_event(response) if stream else await response.read()
            record.first_event(streamed=stream)
            if 400 <= response.status < 500:
                raise EngineRefused(Answer(response.status, response.content_type, first))
            if response.status != 200 or (stream and is_error(first)):
                raise DecodeFailed(f"{decode.name} answered {response.status} with an error")

            def close() -> None:
                response.close()
                record.end("client_left")

            rest = _relay(response, first, record) if stream else None
            answer = Answer(200, response.content_type, first, rest, close)
            return answer
        finally:
            if answer is None:
                response.close()

    def _post(self, member: Member, path: str, body: dict[str, Any], sent: dict[str, bool] | None = None) -> Any:
        # A new id for every attempt, ours: a comma in a client's id would stop lease renewal.
        headers = {"X-Request-Id": uuid.uuid4().hex, "Content-Type": "application/json"}
        return self._session.post(
            member.url + path, data=json.dumps(body).encode(), headers=headers, trace_request_ctx=sent
        )

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
                try:
                    await self._decode_leg(request, decode, ticket, record)
                except (DecodeFailed, *_NETWORK):
                    self._release(ticket, decode)
                    raise
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
    tail, fault = first[-64:], "error_event" if _ERROR in first else ""
    try:
        async for chunk in response.content.iter_any():
            tail += chunk
            if _ERROR in tail:
                fault = "error_event"
            tail = tail[-64:]
            yield chunk
    except _NETWORK as error:
        fault = f"stream_cut {error}"
    if _DONE not in tail:
        # The blank line ends whatever event was cut.
        yield b"\n\n" + encode(json.dumps(DecodeFailed("the stream was cut; ask again", code="stream_cut").body()))
        fault = fault or "stream_cut"
    if fault:
        kind, _, detail = fault.partition(" ")
        record.fault(kind, detail)
    record.end("decode_failed" if fault else "ok")


def error_code(error: Exception) -> str:
    """A short word for what went wrong with decode."""
    return error.code if isinstance(error, DecodeFailed) else "decode_unreachable"
