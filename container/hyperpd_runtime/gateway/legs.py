"""The two legs of a request as HTTP calls to engines, and the way to give a ticket back."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from hyperpd.errors import DecodeFailed, PrefillFailed, Rejected
from hyperpd.recipe import Recipe
from hyperpd_runtime.gateway import handoff, telemetry, usage
from hyperpd_runtime.gateway.apis import Api
from hyperpd_runtime.gateway.guard import Admitted
from hyperpd_runtime.gateway.handoff import Ticket
from hyperpd_runtime.gateway.member import Member
from hyperpd_runtime.gateway.relay import (
    NETWORK,
    Answer,
    EngineRefused,
    close_answer,
    first_event,
    is_error,
    relay,
    whole,
)
from hyperpd_runtime.gateway.telemetry import Record

_STEP_TIMEOUT_S = 30
_RELEASE_TIMEOUT_S = 10
_OF_THE_FLEET = (401, 403, 404, 429)  # says nothing of the client's request, which decode may well answer
# When the client leaves, a leg goes on for a moment.
# - An engine looks for aborts between its steps only: a prefill whose last step runs (for a short prompt, the
#   only one) pins its blocks all the same, for a whole lease unless its ticket is read and given back. One
#   that takes far longer than others did is queued, and cancelled.
# - A decode whose connection closes before the engine has it tells prefill nothing: uvicorn then drops the
#   body, and vLLM starts streams lazily.
_GRACE_S = 8.0  # 1 s left 8 of 1,200 tickets to their lease, on a machine whose prefills took up to 4 s
_WEIGHT = 0.2  # of the latest in the average
_GRACE = 4.0  # times what a prefill of that worker took lately
_NO_PATH = b'{"detail":"Not Found"}'  # FastAPI's: an engine has only the paths of what its model does
_EXPIRED_LEASES = "vllm:nixl_num_kv_expired_reqs_total"
Sent = dict[str, float]  # not empty once the body of a request goes out: `at_s`, monotonic


class Legs:
    """Calls to engines. What outlives its request runs in the background, until `close`."""

    def __init__(self, session: aiohttp.ClientSession, recipe: Recipe, another: Callable[[Member], Member]) -> None:
        """another: decode worker than the one that failed to give a ticket back."""
        self._session = session
        self._another = another
        self._model = recipe.model.name
        self._prefill_ranks = recipe.prefill.parallel.data if recipe.prefill else 1
        self._background: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait for the tickets that are being given back."""
        while self._background:  # what is let go of may begin another
            await asyncio.gather(*self._background)

    async def prefill(self, api: Api, body: dict[str, Any], prefill: Member) -> Ticket:
        """Compute a prompt. Raises PrefillFailed, HandoffFailed, EngineRefused, or what aiohttp raises."""
        sent_s = time.monotonic()
        async with self._post(prefill, api.path, handoff.prefill_body(body, api)) as response:
            raw = await whole(response)
            if 400 <= response.status < 500 and response.status not in _OF_THE_FLEET:
                raise EngineRefused(Answer(response.status, response.content_type, raw))
            if response.status != 200:
                raise PrefillFailed(f"{prefill.name} answered {response.status}")
            try:
                answer = json.loads(raw)
            except (ValueError, RecursionError):
                answer = None
            if not isinstance(answer, dict):
                raise PrefillFailed(f"{prefill.name} answered no JSON object")
            prefill.prefill_s += _WEIGHT * (time.monotonic() - sent_s - prefill.prefill_s)
            return handoff.ticket(answer, sent_s, prefill.url)

    async def prefill_or_let_go(self, api: Api, body: dict[str, Any], prefill: Member, decode: Member) -> Ticket:
        """As `prefill`; when it is cancelled, what it pins is freed. Until then it has its own place at `decode`."""
        running = asyncio.create_task(self.prefill(api, body, prefill))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            decode.room.keep()
            self._in_background(self._let_go(running, max(_GRACE_S, _GRACE * prefill.prefill_s), decode))
            raise

    async def _let_go(self, running: asyncio.Task[Ticket], grace_s: float, decode: Member) -> None:
        await asyncio.wait({running}, timeout=grace_s)
        running.cancel()
        (ended,) = await asyncio.gather(running, return_exceptions=True)
        decode.room.leave()
        if isinstance(ended, Ticket):
            self.release(ended, decode)

    async def decode(
        self,
        request: Admitted,
        decode: Member,
        ticket: Ticket | None,
        record: Record,
        sent: Sent | None = None,
        deadline: asyncio.Timeout | None = None,
    ) -> Answer:
        """Open decode and look at its first event. Raises DecodeFailed, EngineRefused, or what aiohttp raises."""
        api = request.api
        body = handoff.decode_body(request.body, ticket, decode.salt)
        response = await self._post(decode, api.path, body, sent)
        answer: Answer | None = None
        try:
            stream = request.stream and response.status == 200
            first = await first_event(response, api, deadline, record.at_work) if stream else await whole(response)
            if 400 <= response.status < 500:
                refused = EngineRefused(_told(Answer(response.status, response.content_type, first), api.path))
                if ticket and refused.by_form:
                    self.release(ticket, decode)
                raise refused
            if response.status != 200 or (stream and is_error(first, api)):
                raise DecodeFailed(f"{decode.name} answered {response.status} with an error")
            record.first_event(streamed=stream)

            def close() -> None:
                response.close()
                record.end("client_left")

            def failed() -> None:
                if ticket:
                    self.release(ticket, decode)

            told = ticket.usage if ticket else {}
            if stream:
                events = relay(response, first, api, record, told, failed)
                answer = Answer(200, response.content_type, b"", events, close)
            else:
                answer = Answer(200, response.content_type, usage.correct(first, told) if told else first)
            return answer
        finally:
            if answer is None:
                response.close()

    def leave(self, leg: asyncio.Task[Answer], sent: Sent) -> None:
        """Close a decode leg; one that has just been sent when it has begun, or after a moment."""
        leg.add_done_callback(close_answer)
        grace_s = _GRACE_S - (time.monotonic() - sent["at_s"]) if sent else 0
        if grace_s > 0:
            self._in_background(_cancel_later(leg, grace_s))
        else:
            leg.cancel()

    async def pass_on(self, path: str, body: dict[str, Any], worker: Member) -> Answer:
        """Ask one worker something that has no second leg."""
        try:
            async with self._post(worker, path, body) as response:
                raw = await whole(response)
            if response.status != 200 and not 400 <= response.status < 500:
                raise DecodeFailed(f"{worker.name} answered {response.status}; try again")
            return _told(Answer(response.status, response.content_type, raw), path)
        except NETWORK as error:
            raise DecodeFailed(f"{worker.name}: {telemetry.described(error)}; try again") from error

    def _post(
        self, member: Member, path: str, body: dict[str, Any], sent: Sent | None = None, rank: int | None = None
    ) -> Any:
        # A new id for every attempt, ours: a comma in a client's id would stop lease renewal.
        headers = {"X-Request-Id": uuid.uuid4().hex, "Content-Type": "application/json"}
        if rank is not None:
            headers["X-data-parallel-rank"] = str(rank)
        data = json.dumps(body).encode()
        return self._session.post(
            member.url + path,
            data=data,
            headers=headers,
            trace_request_ctx=sent,
            allow_redirects=False,  # an engine sends nobody elsewhere
            server_hostname=member.certified,
        )

    async def expired_leases(self, prefill: Member) -> float:
        """How many leases have expired at `prefill`. A rank notices only when it steps, so each is given a step first.

        Raises DecodeFailed when it does not say.
        """
        async with asyncio.timeout(_STEP_TIMEOUT_S):
            steps = await asyncio.gather(*(self._step(prefill, rank) for rank in range(self._prefill_ranks)))
            async with self._session.get(
                f"{prefill.url}/metrics", allow_redirects=False, server_hostname=prefill.certified
            ) as response:
                lines = (await whole(response)).decode(errors="replace").splitlines()
        counts = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(_EXPIRED_LEASES)]
        if {*steps, response.status} != {200} or not counts:
            raise DecodeFailed(f"{prefill.name} does not say how many leases expired")
        return sum(counts)

    async def _step(self, prefill: Member, rank: int) -> int:
        """Let one data-parallel rank compute something; the HTTP status."""
        body = {"model": self._model, "prompt": [1], "max_tokens": 3}
        chosen = rank if self._prefill_ranks > 1 else None  # unverified with a real worker of several ranks
        async with self._post(prefill, "/v1/completions", body, rank=chosen) as step:
            await whole(step)
            return int(step.status)

    def release(self, ticket: Ticket, decode: Member) -> None:
        """Give a ticket back in the background: decode refuses the request and tells prefill to free the blocks."""

        async def send() -> None:
            if await self._released(ticket, decode) or await self._released(ticket, self._another(decode)):
                telemetry.RELEASED.inc()

        self._in_background(send())

    async def _released(self, ticket: Ticket, decode: Member) -> bool:
        try:
            async with asyncio.timeout(_RELEASE_TIMEOUT_S):
                async with self._post(decode, "/v1/completions", handoff.release_body(ticket)) as response:
                    await whole(response)
            if response.status == 404:  # there is no such model: it has told prefill
                return True
            why = f"it answered {response.status}"
        except NETWORK as error:
            why = telemetry.described(error)
        telemetry.log.warning("event=release_failed worker=%s detail=%r", decode.name, why)
        return False

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _told(answer: Answer, path: str) -> Answer:
    """What the engine answered. Raises Rejected (404) where it says in no API's words that it has no such path."""
    if answer.status == 404 and answer.body == _NO_PATH:
        raise Rejected(f"{path}: the model that is served here does not do that", status=404, code="not_found")
    return answer


async def _cancel_later(leg: asyncio.Task[Answer], grace_s: float) -> None:
    await asyncio.wait({leg}, timeout=grace_s)
    leg.cancel()
