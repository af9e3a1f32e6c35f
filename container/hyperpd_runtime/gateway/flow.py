"""One request: choose, prefill, hand off, decode, relay."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import Sequence

import aiohttp

from hyperpd.errors import DecodeFailed, HandoffFailed, PrefillFailed
from hyperpd.recipe import Recipe
from hyperpd_runtime.gateway import split, telemetry
from hyperpd_runtime.gateway.apis import COMPLETIONS
from hyperpd_runtime.gateway.deadlines import Deadlines
from hyperpd_runtime.gateway.guard import PLAIN, Admitted
from hyperpd_runtime.gateway.handoff import Ticket
from hyperpd_runtime.gateway.legs import Legs, Sent
from hyperpd_runtime.gateway.pool import Member, Pair, Pool
from hyperpd_runtime.gateway.relay import NETWORK, Answer, EngineRefused, close_answer, joined
from hyperpd_runtime.gateway.telemetry import Record

# A read after the lease's end gives wrong text with HTTP 200, so both bounds count from the moment
# the prefill request was sent.
_TICKET_AGE = 0.6  # of the lease: an older ticket is not used
_FIRST_EVENT = 0.9  # of the lease: decode must have answered by then
_EXPIRED = "a lease expired before decode had answered"
_CANARY_TIMEOUT_S = 60  # or less: no pair is proven by a handoff that would be too late for a request


class Flow:
    """The way of a request through the pool. One per gateway."""

    def __init__(self, session: aiohttp.ClientSession, pool: Pool, recipe: Recipe) -> None:
        self.legs = Legs(session, recipe, pool.another)
        self._pool = pool
        self._deadlines = Deadlines(recipe.gateway.limits)
        self._model = recipe.model.name
        # More than one block, where a prompt may be that long.
        self._canary_tokens = min(recipe.kv_transfer.block_size_tokens * 3 // 2, recipe.model.max_len_tokens - 2)

    async def close(self) -> None:
        """Wait for the tickets that are being given back."""
        await self.legs.close()

    async def run(self, request: Admitted, record: Record) -> Answer:
        """Answer one request. Raises RequestError; cancelling it cancels what runs upstream."""
        answer = await self._deadlines.answer(self._answer(request, record), record, stream=request.stream)
        if answer.events is not None:
            record.begun()
            return self._deadlines.within(answer, request.api, record)
        record.hear(answer.body)
        return answer

    async def _answer(self, request: Admitted, record: Record) -> Answer:
        try:
            if request.shape.how == "split" and self._pool.disaggregated:
                return await self._split(request, record)
            decode = self._pool.pick()
            if self._pool.disaggregated and request.shape.how == "disaggregated":
                await self._take(decode, [record])
            return await self._run(request, decode, record)
        except EngineRefused as refused:
            return refused.answer

    async def pass_on(self, path: str, body: dict[str, object], record: Record) -> Answer:
        """Answer what has no second leg, by a worker that decodes."""
        decode = self._pool.pick()
        record.decode, record.mode = decode.name, "passed"
        return await self._deadlines.answer(self.legs.pass_on(path, body, decode), record, stream=False)

    async def _take(self, decode: Member, records: Sequence[Record]) -> None:
        """A place at `decode` for each of these, until it ends."""
        began_s = time.monotonic()
        with telemetry.WAITING.track_inprogress():
            await decode.room.take(len(records))
        for record in records:
            record.queue_s = time.monotonic() - began_s
            record.on_end.append(decode.room.leave)

    async def _run(self, request: Admitted, decode: Member, record: Record, *, room: bool = True) -> Answer:
        """One answer by `decode`, at which a place was taken if there is `room`. Raises EngineRefused too."""
        record.decode = decode.name
        pair, ticket = await self._prefill(request, decode, record, room)
        answer = await self._decode(request, decode, pair, ticket, record)
        if record.part and answer.events is None:  # it no longer runs, whatever the others do
            record.end("split")
        return answer

    async def _split(self, request: Admitted, record: Record) -> Answer:
        """All parts at once, each prompt at the next worker, where its answers share the prompt's blocks."""
        parts, per_prompt = split.split(request), split.answers_per_prompt(request)
        records = [record.for_part() for _ in parts]
        picked = [self._pool.pick() for _ in parts[::per_prompt]]
        decodes = [decode for decode in picked for _ in range(per_prompt)]
        moved: dict[Member, list[Record]] = {}
        for part, decode, its in zip(parts, decodes, records, strict=True):
            if part.shape.how == "disaggregated":
                moved.setdefault(decode, []).append(its)
        roomy = {decode for decode, theirs in moved.items() if len(theirs) <= decode.room.places}
        running: list[asyncio.Task[Answer]] = []
        answers: list[Answer] = []
        try:
            # Those at one worker together, and the workers in one order: no two requests wait for each other.
            for decode in sorted(roomy, key=lambda decode: decode.name):
                await self._take(decode, moved[decode])
            running = [
                asyncio.create_task(self._run(part, decode, its, room=decode in roomy))
                for part, decode, its in zip(parts, decodes, records, strict=True)
            ]
            await asyncio.wait(running, return_when="FIRST_EXCEPTION")
            record.gather(records)
            failed = next((task.exception() for task in running if task.done() and task.exception()), None)
            if failed:
                raise failed
            answers = [task.result() for task in running]
            if not request.stream:
                whole = split.join([json.loads(answer.body) for answer in answers], per_prompt)
                return Answer(200, "application/json", json.dumps(whole).encode())
        finally:
            if not (answers and request.stream):
                for its in records:
                    its.end("split")
                for task in running:
                    task.cancel()
                    task.add_done_callback(close_answer)
                await asyncio.gather(*running, return_exceptions=True)

        def close() -> None:
            for answer in answers:
                answer.close()
            record.end("client_left")

        return Answer(200, answers[0].content_type, b"", joined(answers, per_prompt, request.api, record), close)

    async def _prefill(
        self, request: Admitted, decode: Member, record: Record, room: bool
    ) -> tuple[Pair | None, Ticket | None]:
        """A ticket for `decode`; None where decode has to compute the prompt itself."""
        record.mode = "pd" if self._pool.disaggregated else "aggregated"
        if not self._pool.disaggregated:
            return None, None
        if request.shape.how == "decode_only":
            record.mode = "decode_only"
            return None, None
        if not room:
            record.recompute("no_room")
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
                    ticket = await self.legs.prefill_or_let_go(request.api, request.body, pair.prefill, decode)
            except (PrefillFailed, HandoffFailed, aiohttp.ClientError, ConnectionError) as error:
                record.fault(getattr(error, "code", "prefill_unreachable"), telemetry.described(error))
                continue
            except TimeoutError:  # an old ticket is not used, so there is no point in waiting for one
                why = "ticket_old"
                record.fault(why, f"no prefill answer within {_TICKET_AGE * pair.lease_s:.0f} s")
                break
            record.prefilled(ticket.sent_s)
            return pair, ticket
        record.recompute(why)
        return None, None

    async def _decode(
        self, request: Admitted, decode: Member, pair: Pair | None, ticket: Ticket | None, record: Record
    ) -> Answer:
        if ticket and pair and ticket.age_s(time.monotonic()) >= _TICKET_AGE * pair.lease_s:
            record.fault("ticket_old", f"{ticket.age_s(time.monotonic()):.1f} s of a lease of {pair.lease_s} s")
            self.legs.release(ticket, decode)
            record.recompute("ticket_old")
        elif ticket and pair:
            sent: Sent = {}
            try:
                answer = await self._decode_with(ticket, request, decode, pair, record, sent)
            except (DecodeFailed, *NETWORK) as error:
                late = ticket.age_s(time.monotonic()) >= _FIRST_EVENT * pair.lease_s
                telemetry.HANDOFFS.labels("late" if late else "failed").inc()
                unnamed = "first_event_late" if late else "decode_unreachable"
                said = telemetry.described(error)
                record.fault(error.code if isinstance(error, DecodeFailed) else unnamed, said)
                pair.doubt(f"handoff failed: {said}")
                record.recompute("handoff_failed")
                asked = decode
                # The same without the ticket where it did answer: that works even when the pair is dead.
                if not isinstance(error, DecodeFailed):
                    decode = self._pool.another(asked)
                    record.decode = decode.name
                if late:
                    asked.room.late()
                if late and sent:  # it tells prefill by itself, when it gets to it. By then it may read other blocks
                    self._hide_cache(asked)
                else:
                    self.legs.release(ticket, decode)
            except asyncio.CancelledError:
                if not sent:  # else decode sees the connection close and tells prefill
                    self.legs.release(ticket, decode)
                raise
            else:
                telemetry.HANDOFFS.labels("decoded").inc()
                decode.room.in_time()
                return answer
        return await self._decode_alone(request, decode, record)

    async def _decode_alone(self, request: Admitted, decode: Member, record: Record) -> Answer:
        """Without a ticket: where a worker cannot be reached, another may."""
        for others in (True, False):
            try:
                return await self.legs.decode(request, decode, None, record)
            except NETWORK as error:
                record.fault("decode_unreachable", telemetry.described(error))
            asked, decode = decode, self._pool.another(decode)
            if not others or decode is asked:
                break
            record.decode = decode.name
        raise DecodeFailed(f"{asked.name} cannot be reached")

    async def _decode_with(
        self, ticket: Ticket, request: Admitted, decode: Member, pair: Pair, record: Record, sent: Sent
    ) -> Answer:
        """Decode with a ticket. Raises when its first event may have come from blocks of an expired lease."""
        deadline_s = _FIRST_EVENT * pair.lease_s - ticket.age_s(time.monotonic())
        if request.stream:
            return await self._stream_with(ticket, request, decode, record, sent, deadline_s)
        running = asyncio.create_task(self.legs.decode(request, decode, ticket, record, sent))
        # A whole answer has no first event. One that takes longer is good if no lease of this
        # prefill worker expired meanwhile; the lease itself has not, at this moment.
        try:
            done, _ = await asyncio.wait({running}, timeout=deadline_s)
            if done:
                return running.result()
            before = await self.legs.expired_leases(pair.prefill)
            if ticket.age_s(time.monotonic()) >= pair.lease_s:  # it may have expired before that was counted
                raise DecodeFailed(_EXPIRED, code="lease_expired")
            while not done:
                done, _ = await asyncio.wait({running}, timeout=1)
                if not (pair.prefill.healthy and decode.healthy):
                    raise DecodeFailed("a worker of the pair was lost")
            if await self.legs.expired_leases(pair.prefill) != before:
                raise DecodeFailed(_EXPIRED, code="lease_expired")
            return running.result()
        except asyncio.CancelledError:
            self.legs.leave(running, sent)
            raise
        except (DecodeFailed, *NETWORK):
            self.legs.leave(running, {})
            raise

    async def _stream_with(
        self, ticket: Ticket, request: Admitted, decode: Member, record: Record, sent: Sent, deadline_s: float
    ) -> Answer:
        async with asyncio.timeout(deadline_s) as deadline:
            running = asyncio.create_task(self.legs.decode(request, decode, ticket, record, sent, deadline))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                self.legs.leave(running, {} if deadline.expired() else sent)
                raise

    @staticmethod
    def _hide_cache(decode: Member) -> None:
        """A late read may have put wrong blocks into decode's prefix cache: a new salt hides them for good."""
        decode.salt = uuid.uuid4().hex

    async def canary(self, pair: Pair) -> None:
        """Send one small prompt through a pair. Raises when its KV does not arrive within the lease."""
        prefill, decode = pair.prefill, pair.decode
        prompt = [random.randrange(3, 250) for _ in range(self._canary_tokens)]
        body = {"model": self._model, "prompt": prompt, "max_tokens": 2, "temperature": 0}
        record = Record(
            request_id=f"canary-{uuid.uuid4().hex[:8]}", mode="canary", prefill=prefill.name, decode=decode.name
        )
        try:
            async with asyncio.timeout(min(_CANARY_TIMEOUT_S, _FIRST_EVENT * pair.lease_s)):
                ticket = await self.legs.prefill_or_let_go(COMPLETIONS, body, prefill, decode)
                try:
                    await self.legs.decode(Admitted(body, COMPLETIONS, PLAIN), decode, ticket, record)
                except (DecodeFailed, *NETWORK, asyncio.CancelledError):
                    self.legs.release(ticket, decode)
                    raise
        except EngineRefused as refused:
            raise DecodeFailed(f"canary refused with {refused.answer.status}") from None
