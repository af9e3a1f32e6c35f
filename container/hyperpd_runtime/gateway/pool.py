"""Live workers: their health, whose turn it is, and which prefill → decode pairs are proven."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import aiohttp

from hyperpd import pairing
from hyperpd.errors import HyperpdError, NoWorkerAvailable
from hyperpd.pairing import Fingerprint
from hyperpd_runtime.gateway.discovery import Endpoint

log = logging.getLogger("hyperpd.gateway")
_PROBE_EVERY_S = 0.5
_PROBE_TIMEOUT_S = 3.0
_ENGINE_LEASE_S = 30  # vLLM's default, for a plain engine that says nothing of itself
_RETRY_PAIR_S = 5.0  # an unproven pair is tried again after this long

Canary = Callable[["Member", "Member"], Awaitable[None]]


class Member:
    """One worker as the gateway sees it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.name
        self.role = endpoint.role
        self.url = endpoint.url
        self.admin_url = endpoint.admin_url
        self.fingerprint: Fingerprint | None = None  # what the worker says of itself; a plain engine says nothing
        self.recipe_digest = ""
        self.salt = ""  # set for good once its prefix cache may hold wrong blocks: no request finds those again
        self.healthy = False
        self.why = "not probed yet"


class Pair:
    """One way for KV: a prefill and a decode worker. Serves only after a canary came through."""

    def __init__(self, prefill: Member, decode: Member) -> None:
        self.prefill = prefill
        self.decode = decode
        self.proven = False
        self.why = "not tried yet"
        self.try_after_s = 0.0

    @property
    def lease_s(self) -> float:
        """How long prefill keeps a ticket's blocks, by its own word."""
        return self.prefill.fingerprint.lease_s if self.prefill.fingerprint else _ENGINE_LEASE_S

    def doubt(self, why: str) -> None:
        """Take the pair out until the next canary."""
        self.proven, self.why = False, why


class Pool:
    """All workers of one gateway; round robin among those that would serve."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self.members = [Member(endpoint) for endpoint in endpoints]
        prefills = [member for member in self.members if member.role == "prefill"]
        decodes = [member for member in self.members if member.role == "decode"]
        self.pairs = [Pair(prefill, decode) for prefill in prefills for decode in decodes]
        self.disaggregated = bool(self.pairs)
        self.draining = False
        self._was_ready = not self.disaggregated
        self.in_flight = 0  # requests whose last byte has not been sent
        self._decode_turn = itertools.count()
        self._prefill_turn = {member.name: itertools.count() for member in self.members}

    def pick(self) -> Member:
        """The worker that will decode. Raises NoWorkerAvailable."""
        ready = self._decodes()
        if not ready or self._cold():
            raise NoWorkerAvailable(f"{self.not_ready()}; see hyperpd status", retry_after_s=5)
        return ready[next(self._decode_turn) % len(ready)]

    def _decodes(self) -> list[Member]:
        return [m for m in self.members if m.role != "prefill" and m.healthy and self._belongs(m)]

    def _belongs(self, decode: Member) -> bool:
        """False for a worker that can pair with no prefill worker we know: it may serve another model."""
        prints = [m.fingerprint for m in self.members if m.role == "prefill" and m.fingerprint]
        if not prints or not decode.fingerprint:
            return True
        return any(not pairing.compatible(prefill, decode.fingerprint) for prefill in prints)

    def pair_for(self, decode: Member, avoid: Pair | None = None) -> Pair | None:
        """A proven pair that ends at `decode`, another than `avoid` where there is one; None when there is none."""
        proven = [pair for pair in self.pairs if pair.decode is decode and pair.proven and pair.prefill.healthy]
        proven = [pair for pair in proven if pair is not avoid] or proven
        return proven[next(self._prefill_turn[decode.name]) % len(proven)] if proven else None

    def not_ready(self) -> str | None:
        """Why a request would not be served as the recipe says, or None."""
        if self.draining:
            return "draining"
        if not self._decodes():
            return "no worker can decode: " + "; ".join(f"{member.name}: {member.why}" for member in self.members)
        if self.disaggregated and not any(pair.proven for pair in self.pairs):
            return "no pair proven: " + "; ".join(f"{p.prefill.name} → {p.decode.name}: {p.why}" for p in self.pairs)
        return None

    def unavailable(self) -> str | None:
        """Why a request would not be answered at all, or None.

        Once a pair has been proven, decode answers alone where none is left: counted, and seen in `not_ready`.
        """
        if self.draining or not self._decodes() or self._cold():
            return self.not_ready()
        return None

    def _cold(self) -> bool:
        """Whether no pair has been proven since the start; before that nothing is served."""
        return not self._was_ready and not any(pair.proven for pair in self.pairs)

    async def watch(self, session: aiohttp.ClientSession, canary: Canary) -> None:
        """Probe every worker and prove every pair, for ever; one that hangs holds up no other."""
        async with asyncio.TaskGroup() as tasks:
            for member in self.members:
                tasks.create_task(_forever(partial(self._probe, session, member)))
            for pair in self.pairs:
                tasks.create_task(_forever(partial(self._prove, pair, canary)))

    async def _probe(self, session: aiohttp.ClientSession, member: Member) -> None:
        try:
            timeout = aiohttp.ClientTimeout(total=_PROBE_TIMEOUT_S)
            async with session.get(f"{member.url}/health", timeout=timeout) as answer:
                healthy, why = answer.status == 200, f"/health answers {answer.status}"
            if healthy and member.fingerprint:  # it has a supervisor, who knows what the engine does not
                async with session.get(f"{member.admin_url}/ready", timeout=timeout) as answer:
                    if answer.status != 200:
                        healthy, why = False, str((await answer.json()).get("state"))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            healthy, why = False, f"{type(error).__name__} at {member.url}/health"
        if healthy != member.healthy:
            log.info("event=worker worker=%s healthy=%s why=%r", member.name, healthy, why)
            if healthy:  # it may have been replaced. Or only frozen: its salt stays, which costs a new one nothing
                member.fingerprint = None
        if healthy and not member.fingerprint:
            await self._identify(session, member)
        member.healthy, member.why = healthy, why
        if not healthy:
            for pair in self.pairs:
                if member in (pair.prefill, pair.decode):
                    pair.doubt(f"{member.name} is not healthy")

    async def _identify(self, session: aiohttp.ClientSession, member: Member) -> None:
        try:
            timeout = aiohttp.ClientTimeout(total=_PROBE_TIMEOUT_S)
            async with session.get(f"{member.admin_url}/hyperpd/fingerprint", timeout=timeout) as answer:
                document = await answer.json()
                member.fingerprint = pairing.read(document)
                member.recipe_digest = str(document.get("recipe_digest", ""))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            if not member.healthy:  # said once, tried again with every probe
                log.warning("event=no_fingerprint worker=%s detail=%r", member.name, str(error) or type(error).__name__)
            return
        for pair in self.pairs:
            if member in (pair.prefill, pair.decode):
                pair.doubt("identified anew")

    async def _prove(self, pair: Pair, canary: Canary) -> None:
        healthy = pair.prefill.healthy and pair.decode.healthy
        if not healthy or pair.proven or time.monotonic() < pair.try_after_s:
            return
        left, right = pair.prefill.fingerprint, pair.decode.fingerprint
        if left and right and (broken := pairing.compatible(left, right)):
            pair.doubt("; ".join(broken))
            pair.try_after_s = time.monotonic() + _RETRY_PAIR_S
            return
        try:
            await canary(pair.prefill, pair.decode)
        except (HyperpdError, aiohttp.ClientError, TimeoutError) as error:
            pair.doubt(f"canary: {error or type(error).__name__}")
            pair.try_after_s = time.monotonic() + _RETRY_PAIR_S
        else:
            pair.proven, pair.why = True, "canary came through"
            self._was_ready = True
        log.info(
            "event=pair prefill=%s decode=%s proven=%s why=%r",
            *(pair.prefill.name, pair.decode.name, pair.proven, pair.why),
        )

    def status(self) -> dict[str, Any]:
        """Workers and pairs as JSON."""
        return {
            "workers": [
                {
                    "name": m.name,
                    "role": m.role,
                    "url": m.url,
                    "healthy": m.healthy,
                    "why": m.why,
                    "recipe_digest": m.recipe_digest,
                    "engine_digest": m.fingerprint.identity.digest if m.fingerprint else None,
                }
                for m in self.members
            ],
            "pairs": [
                {"prefill": p.prefill.name, "decode": p.decode.name, "proven": p.proven, "why": p.why}
                for p in self.pairs
            ],
        }


async def _sent(_: Any, context: Any, __: Any) -> None:
    """Note in a request's own dictionary that it went out."""
    if context.trace_request_ctx is not None:
        context.trace_request_ctx["sent"] = True


async def _forever(step: Callable[[], Awaitable[None]]) -> None:
    while True:
        await step()
        await asyncio.sleep(_PROBE_EVERY_S)


@contextlib.asynccontextmanager
async def session() -> Any:
    """The client for both legs: no limits of its own; the engines keep connections longer than we do."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    traces = aiohttp.TraceConfig()
    traces.on_request_headers_sent.append(_sent)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trace_configs=[traces]) as opened:
        yield opened
