"""Live workers: their health, whose turn it is, and which prefill → decode pairs are proven."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import aiohttp

from hyperpd.errors import HyperpdError, NoWorkerAvailable
from hyperpd_runtime.gateway.discovery import Endpoint

log = logging.getLogger("hyperpd.gateway")
_PROBE_EVERY_S = 1.0
_PROBE_TIMEOUT_S = 3.0
_RETRY_PAIR_S = 5.0  # an unproven pair is tried again after this long

Canary = Callable[["Member", "Member"], Awaitable[None]]


class Member:
    """One worker as the gateway sees it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.name
        self.role = endpoint.role
        self.url = endpoint.url
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
        self._turn = itertools.count()

    def pick(self) -> Member:
        """The worker that will decode. Raises NoWorkerAvailable."""
        ready = [member for member in self.members if member.role != "prefill" and member.healthy]
        if not ready:
            states = "; ".join(f"{member.name}: {member.why}" for member in self.members)
            raise NoWorkerAvailable(f"no worker can decode ({states}); see hyperpd status", retry_after_s=5)
        return ready[next(self._turn) % len(ready)]

    def pair_for(self, decode: Member, avoid: Pair | None = None) -> Pair | None:
        """A proven pair that ends at `decode`, another than `avoid` where there is one; None when there is none."""
        proven = [pair for pair in self.pairs if pair.decode is decode and pair.proven and pair.prefill.healthy]
        proven = [pair for pair in proven if pair is not avoid] or proven
        return proven[next(self._turn) % len(proven)] if proven else None

    def not_ready(self) -> str | None:
        """Why a request would not be served as the recipe says, or None."""
        try:
            self.pick()
        except NoWorkerAvailable as error:
            return str(error)
        if self.disaggregated and not any(pair.proven for pair in self.pairs):
            return "no pair proven: " + "; ".join(f"{p.prefill.name} → {p.decode.name}: {p.why}" for p in self.pairs)
        return None

    async def watch(self, session: aiohttp.ClientSession, canary: Canary) -> None:
        """Probe every worker and prove every pair, for ever."""
        while True:
            await asyncio.gather(*(self._probe(session, member) for member in self.members))
            due = [pair for pair in self.pairs if self._due(pair)]
            await asyncio.gather(*(self._prove(pair, canary) for pair in due))
            await asyncio.sleep(_PROBE_EVERY_S)

    async def _probe(self, session: aiohttp.ClientSession, member: Member) -> None:
        try:
            timeout = aiohttp.ClientTimeout(total=_PROBE_TIMEOUT_S)
            async with session.get(f"{member.url}/health", timeout=timeout) as answer:
                healthy, why = answer.status == 200, f"/health answers {answer.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            healthy, why = False, f"{type(error).__name__} at {member.url}/health"
        if healthy != member.healthy:
            log.info("event=worker worker=%s healthy=%s why=%r", member.name, healthy, why)
        member.healthy, member.why = healthy, why
        if not healthy:
            for pair in self.pairs:
                if member in (pair.prefill, pair.decode):
                    pair.doubt(f"{member.name} is not healthy")

    def _due(self, pair: Pair) -> bool:
        healthy = pair.prefill.healthy and pair.decode.healthy
        return healthy and not pair.proven and time.monotonic() >= pair.try_after_s

    async def _prove(self, pair: Pair, canary: Canary) -> None:
        try:
            await canary(pair.prefill, pair.decode)
        except (HyperpdError, aiohttp.ClientError, TimeoutError) as error:
            pair.doubt(f"canary: {error or type(error).__name__}")
            pair.try_after_s = time.monotonic() + _RETRY_PAIR_S
        else:
            pair.proven, pair.why = True, "canary came through"
        log.info(
            "event=pair prefill=%s decode=%s proven=%s why=%r",
            *(pair.prefill.name, pair.decode.name, pair.proven, pair.why),
        )

    def status(self) -> dict[str, Any]:
        """Workers and pairs as JSON."""
        return {
            "workers": [
                {"name": m.name, "role": m.role, "url": m.url, "healthy": m.healthy, "why": m.why} for m in self.members
            ],
            "pairs": [
                {"prefill": p.prefill.name, "decode": p.decode.name, "proven": p.proven, "why": p.why}
                for p in self.pairs
            ],
        }


@contextlib.asynccontextmanager
async def session() -> Any:
    """The client for both legs: no limits of its own; the engines keep connections longer than we do."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as opened:
        yield opened
