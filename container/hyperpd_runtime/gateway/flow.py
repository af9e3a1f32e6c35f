"""One request: choose its workers, prefill, hand off, decode, relay."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import Sequence

import aiohttp

from hyperpd.errors import DecodeFailed, HandoffFailed, NoWorkerAvailable, PrefillFailed
from hyperpd.recipe import Recipe
from hyperpd.routing.choice import Verdict
from hyperpd.routing.request import Request
from hyperpd_runtime.gateway import split, telemetry
from hyperpd_runtime.gateway.apis import COMPLETIONS
from hyperpd_runtime.gateway.deadlines import Deadlines
from hyperpd_runtime.gateway.guard import PLAIN, Admitted
from hyperpd_runtime.gateway.handoff import Ticket
from hyperpd_runtime.gateway.legs import Legs, Sent
from hyperpd_runtime.gateway.member import Member, Pair
from hyperpd_runtime.gateway.pool import Pool
from hyperpd_runtime.gateway.prompts import Approximate, Exact, Prompts
from hyperpd_runtime.gateway.relay import NETWORK, UNREADABLE, Answer, EngineRefused, close_answer, joined
from hyperpd_runtime.gateway.routing import Passage
from hyperpd_runtime.gateway.telemetry import Record

# A read after the lease's end gives wrong text with HTTP 200, so both bounds count from the moment
# the prefill request was sent.
_TICKET_AGE = 0.6  # of the lease: an older ticket is not used
_FIRST_EVENT = 0.9  # of the lease: decode must have answered by then
_EXPIRED = "a lease expired before decode had answered"
_LOCAL = ("cost_local", "below_threshold", "rule")  # decode computes the prompt by the decider's word
_CANARY_TIMEOUT_S = 60  # or less: no pair is proven by a handoff that would be too late for a request


class Flow:
    """The way of a request through the pool. One per gateway."""

    def __init__(self, session: aiohttp.ClientSession, pool: Pool, recipe: Recipe) -> None:
        self.legs = Legs(session, recipe, pool.another)
        self._pool = pool
        self._deadlines = Deadlines(recipe.gateway.limits)
        self._model = recipe.model.name
        block_tokens = recipe.kv_transfer.block_size_tokens
        exact = recipe.gateway.prefix_view == "exact"
        self._prompts: Prompts = Exact(block_tokens, self._ask) if exact else Approximate(block_tokens)
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
            asked = await self._asked(request)
            way = self._choose(asked, record, _settled(request))
            if way.prefill:
                await self._take(way.decode, [record])
            return await self._run(request, way, record)
        except EngineRefused as refused:
            return refused.answer

    async def pass_on(self, path: str, body: dict[str, object], record: Record) -> Answer:
        """Answer what has no second leg, by a worker that decodes."""
        self._pool.check_warm()
        worker = self._pool.any_decode()
        record.decode, record.mode = worker.name, "passed"
        return await self._deadlines.answer(self.legs.pass_on(path, body, worker), record, stream=False)

    async def _ask(self, path: str, body: dict[str, object]) -> Answer:
        """Any worker that decodes."""
        return await self.legs.pass_on(path, body, self._pool.any_decode())

    async def _asked(self, request: Admitted) -> Request:
        """The request as routing sees it."""
        model = str(request.body["model"])
        adapter = model if model != self._model else ""
        return await self._prompts.request(request, adapter=adapter, session=request.session)

    def _choose(self, asked: Request, record: Record, settled: Verdict | None, at: Member | None = None) -> Passage:
        """Where it goes, booked at once. Raises NoWorkerAvailable."""
        self._pool.check_warm()
        try:
            return Passage(self._pool.routing, asked, record, at=at, settled=settled)
        except NoWorkerAvailable:
            raise self._pool.none_available() from None

    async def _take(self, decode: Member, records: Sequence[Record]) -> None:
        """A place at `decode` for each of these, until it ends."""
        began_s = time.monotonic()
        with telemetry.WAITING.track_inprogress():
            await decode.room.take(len(records))
        for record in records:
            record.queue_s = time.monotonic() - began_s
            record.on_end.append(decode.room.leave)

    async def _run(self, request: Admitted, way: Passage, record: Record, *, room: bool = True) -> Answer:
        """One answer, for which a place at decode was taken if there is `room`. Raises EngineRefused too."""
        record.decode = way.decode.name
        pair, ticket = await self._prefill(request, way, record, room)
        answer = await self._decode(request, way, pair, ticket, record)
        if record.part and answer.events is None:  # it no longer runs, whatever the others do
            record.hear(answer.body)
            record.end("split")
        return answer

    async def _split(self, request: Admitted, record: Record) -> Answer:
        """All parts at once; the answers to one prompt at one decode worker, where they share the prompt's blocks."""
        parts, per_prompt = split.split(request), split.answers_per_prompt(request)
        prompts = [await self._asked(part) for part in parts[::per_prompt]]
        records = [record.for_part() for _ in parts]
        running: list[asyncio.Task[Answer]] = []
        answers: list[Answer] = []
        try:
            ways: list[Passage] = []
            for number, (part, its) in enumerate(zip(parts, records, strict=True)):
                asked, settled = prompts[number // per_prompt], _settled(part)
                if of_prompt := number % per_prompt:  # as the first one: what that has brought about is not there yet
                    first = ways[number - of_prompt]
                    ways.append(self._choose(asked, its, settled or first.verdict, first.decode))
                else:
                    ways.append(self._choose(asked, its, settled))
            moved: dict[Member, list[Record]] = {}
            for way, its in zip(ways, records, strict=True):
                if way.prefill:
                    moved.setdefault(way.decode, []).append(its)
            roomy = {decode for decode, theirs in moved.items() if len(theirs) <= decode.room.places}
            # Those at one worker together, and the workers in one order: no two requests wait for each other.
            for decode in sorted(roomy, key=lambda decode: decode.name):
                await self._take(decode, moved[decode])
            running = [
                asyncio.create_task(self._run(part, way, its, room=way.decode in roomy))
                for part, way, its in zip(parts, ways, records, strict=True)
            ]
            await asyncio.wait(running, return_when="FIRST_EXCEPTION")
            record.gather(records)
            failed = next((task.exception() for task in running if task.done() and task.exception()), None)
            if failed:
                raise failed
            answers = [task.result() for task in running]
            if not request.stream:
                try:
                    whole = split.join([json.loads(answer.body) for answer in answers], per_prompt)
                except UNREADABLE as error:
                    record.fault("answer_broken", type(error).__name__)
                    raise DecodeFailed("an answer of decode cannot be read", code="answer_broken") from None
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
        self, request: Admitted, way: Passage, record: Record, room: bool
    ) -> tuple[Pair | None, Ticket | None]:
        """A ticket for `decode`; None where decode has to compute the prompt itself."""
        record.mode = "pd"
        if not self._pool.disaggregated:
            record.mode = "aggregated"
        elif request.shape.how == "decode_only":
            record.mode = "decode_only"
        elif record.reason in _LOCAL:
            record.mode = "local"
        elif not way.prefill:
            record.recompute("no_proven_pair")
        if not way.prefill:
            return None, None
        why = "no_room"
        if room and not self._pool.pair(way.prefill, way.decode):  # it was lost while a place was waited for
            room, why = way.another_prefill(), "no_proven_pair"
        for again in (True, False) if room else ():
            why = "prefill_failed"
            pair = self._pool.pair(way.prefill, way.decode)
            assert pair  # chosen at this moment
            record.prefill = pair.prefill.name
            way.started()
            try:
                async with asyncio.timeout(_TICKET_AGE * pair.lease_s):
                    ticket = await self.legs.prefill_or_let_go(request.api, request.body, pair.prefill, pair.decode)
            except (PrefillFailed, HandoffFailed, aiohttp.ClientError, ConnectionError) as error:
                record.fault(getattr(error, "code", "prefill_unreachable"), telemetry.described(error))
                if again and way.another_prefill():
                    continue
                break
            except TimeoutError:  # an old ticket is not used, so there is no point in waiting for one
                why = "ticket_old"
                record.fault(why, f"no prefill answer within {_TICKET_AGE * pair.lease_s:.0f} s")
                break
            record.prefilled(ticket.sent_s)
            way.prefilled(pair)
            return pair, ticket
        way.fall_back(why)
        return None, None

    async def _decode(
        self, request: Admitted, way: Passage, pair: Pair | None, ticket: Ticket | None, record: Record
    ) -> Answer:
        decode = way.decode
        if ticket and pair and ticket.age_s(time.monotonic()) >= _TICKET_AGE * pair.lease_s:
            record.fault("ticket_old", f"{ticket.age_s(time.monotonic()):.1f} s of a lease of {pair.lease_s} s")
            self.legs.release(ticket, decode)
            way.fall_back("ticket_old")
        elif ticket and pair:
            sent: Sent = {}
            way.sent(stream=request.stream)
            try:
                answer = await self._decode_with(ticket, request, decode, pair, record, sent)
            except (DecodeFailed, *NETWORK) as error:
                late = ticket.age_s(time.monotonic()) >= _FIRST_EVENT * pair.lease_s
                telemetry.HANDOFFS.labels("late" if late else "failed").inc()
                unnamed = "first_event_late" if late else "decode_unreachable"
                said = telemetry.described(error)
                record.fault(error.code if isinstance(error, DecodeFailed) else unnamed, said)
                pair.doubt(f"handoff failed: {said}")
                way.fall_back("handoff_failed")
                # The same without the ticket where it did answer: that works even when the pair is dead.
                if not isinstance(error, DecodeFailed):
                    record.decode = way.another_decode().name
                if late:
                    decode.room.late()
                if late and sent:  # it tells prefill by itself, when it gets to it. By then it may read other blocks
                    self._hide_cache(decode)
                else:
                    self.legs.release(ticket, way.decode)
            except asyncio.CancelledError:
                if not sent:  # else decode sees the connection close and tells prefill
                    self.legs.release(ticket, decode)
                raise
            else:
                telemetry.HANDOFFS.labels("decoded").inc()
                decode.room.in_time()
                return answer
        return await self._decode_alone(request, way, record)

    async def _decode_alone(self, request: Admitted, way: Passage, record: Record) -> Answer:
        """Without a ticket: where a worker cannot be reached, another may."""
        for others in (True, False):
            asked = way.decode
            way.sent(stream=request.stream)
            try:
                return await self.legs.decode(request, asked, None, record)
            except NETWORK as error:
                record.fault("decode_unreachable", telemetry.described(error))
            if not others or way.another_decode() is asked:
                break
            record.decode = way.decode.name
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

    def _hide_cache(self, decode: Member) -> None:
        """A late read may have put wrong blocks into decode's prefix cache: a new salt hides them for good."""
        decode.salt = uuid.uuid4().hex
        self._pool.routing.empty(decode)

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


def _settled(request: Admitted) -> Verdict | None:
    """Where a request is prefilled if that is not routing's to decide."""
    if request.forced:
        return Verdict(True, "forced")
    if request.shape.how == "decode_only":
        return Verdict(False, "forced" if request.shape.why == "forced" else "shape_guard")
    return None
