"""Live workers: their health, and which prefill → decode pairs are proven. Which one serves a request: routing.py."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

import aiohttp

from hyperpd import pairing
from hyperpd.errors import HyperpdError, NoWorkerAvailable
from hyperpd.pairing import Fingerprint
from hyperpd_runtime.gateway import upstream
from hyperpd_runtime.gateway.discovery import Endpoint
from hyperpd_runtime.gateway.member import ENGINE_LEASE_S, Member, Pair, nobody
from hyperpd_runtime.gateway.room import ENGINE_SEQUENCES
from hyperpd_runtime.gateway.routing import Routing
from hyperpd_runtime.gateway.telemetry import described

log = logging.getLogger("hyperpd.gateway")
_PROBE_EVERY_S = 0.5
_PROBE_TIMEOUT_S = 3.0
_RETRY_PAIR_S = 5.0  # an unproven pair is tried again after this long
_SHOWN = 8  # reasons in one sentence; the status has all

Canary = Callable[[Pair], Awaitable[None]]


class Pool:
    """All workers of one gateway. Its routing is told of every change at once."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint] = (),
        *,
        disaggregated: bool,
        routing: Routing,
        sequences: int = ENGINE_SEQUENCES,
        lease_s: float = ENGINE_LEASE_S,
    ) -> None:
        """sequences: how many a decode worker runs at once. lease_s: of a prefill worker that has not said its own."""
        self.disaggregated = disaggregated
        self.routing = routing
        self._sequences = sequences
        self._lease_s = lease_s
        self.members: list[Member] = []
        self.pairs: list[Pair] = []
        self.unresolved: Mapping[str, str] = {}  # sources of workers → why what they have is not known
        self.draining = False
        self.in_flight = 0  # requests whose last byte has not been sent
        self._left: list[Member] = []
        self._pair: dict[tuple[Member, Member], Pair] = {}
        self._pairs_of: dict[Member, list[Pair]] = {}
        self._was_ready = not disaggregated
        self._turn = itertools.count()
        self._changed = asyncio.Event()
        self.update(endpoints)

    def update(self, endpoints: Iterable[Endpoint], unresolved: Mapping[str, str] | None = None) -> None:
        """Make these the members. Those that stay keep all that is known of them; the pairs of gone ones vanish.

        Requests hold their workers themselves, so what runs on one that left runs on.
        """
        self.unresolved = unresolved or {}
        before = self.members
        known = {member.endpoint: member for member in (*before, *self._left)}
        self.members = [known.pop(e) if e in known else Member(e, self._sequences) for e in dict.fromkeys(endpoints)]
        self._announce(before)
        # A salt outlives its worker's absence: the cache may have done so too.
        self._left = [member for member in known.values() if member.healthy or member.salt]
        pairs = self._pair
        prefills, decodes = ([m for m in self.members if m.role == role] for role in ("prefill", "decode"))
        self._pair = {(p, d): pairs.get((p, d)) or self._new(p, d) for p in prefills for d in decodes}
        self.pairs = list(self._pair.values())
        self._pairs_of = {member: [] for member in self.members}
        for pair in self.pairs:
            self._pairs_of[pair.prefill].append(pair)
            self._pairs_of[pair.decode].append(pair)
        for decode in decodes:
            self._sort_out(decode)
        self._changed.set()

    def _announce(self, before: Iterable[Member]) -> None:
        """Say who joined and who left. One of a name may follow another at once, so those that left go first."""
        was, is_now = dict.fromkeys(before), dict.fromkeys(self.members)
        for member in [member for member in was if member not in is_now]:
            member.changed = nobody
            self.routing.leave(member)
            log.info("event=worker_left worker=%s url=%s", member.name, member.url)
        for member in [member for member in is_now if member not in was]:
            self.routing.join(member)
            member.changed = self.routing.sift
            log.info("event=worker_joined worker=%s url=%s", member.name, member.url)

    def _new(self, prefill: Member, decode: Member) -> Pair:
        pair = Pair(prefill, decode, self._lease_s)
        pair.changed = self._judged
        return pair

    def _judged(self, pair: Pair) -> None:
        self._was_ready = self._was_ready or pair.proven
        if self._pair.get((pair.prefill, pair.decode)) is pair:
            self.routing.judge(pair)

    def pair(self, prefill: Member, decode: Member) -> Pair | None:
        """The way between these two, while it may be used."""
        pair = self._pair.get((prefill, decode))
        return pair if pair and pair.proven and prefill.healthy else None

    def identify(self, member: Member, fingerprint: Fingerprint | None) -> None:
        """Note what a worker says of itself; its pairs are judged anew."""
        member.fingerprint = fingerprint
        self.routing.identified(member)
        for pair in self._pairs_of.get(member, ()):
            pair.judge("identified anew")
            self._sort_out(pair.decode)

    def _sort_out(self, decode: Member) -> None:
        judged = [pair.broken for pair in self._pairs_of[decode] if pair.broken is not None]
        decode.belongs = not judged or [] in judged

    def check_warm(self) -> None:
        """Raises NoWorkerAvailable before the first pair was proven: until then nothing is served."""
        if self._cold():
            raise self.none_available()

    def none_available(self) -> NoWorkerAvailable:
        """Why nobody answers, in words."""
        return NoWorkerAvailable(f"{self.not_ready() or 'all are kept out'}; see hyperpd status", retry_after_s=5)

    def any_decode(self) -> Member:
        """One to ask what all of them know, each in turn. Raises NoWorkerAvailable."""
        decodes = self._decodes()
        if not decodes:
            raise self.none_available()
        return decodes[next(self._turn) % len(decodes)]

    def another(self, decode: Member) -> Member:
        """Another that would take a ticket back; itself where there is none."""
        return next((other for other in self._decodes() if other is not decode), decode)

    def _decodes(self) -> list[Member]:
        return [member for member in self.members if member.role != "prefill" and member.healthy and member.belongs]

    def not_ready(self) -> str | None:
        """Why a request would not be served as the recipe says, or None."""
        if self.draining:
            return "draining"
        sources = [f"{source}: {why}" for source, why in self.unresolved.items()]
        if not self._decodes():
            return "no worker can decode: " + _some([*sources, *(f"{m.name}: {m.why}" for m in self.members)])
        if self.disaggregated and not any(pair.proven for pair in self.pairs):
            pairs = [f"{pair.prefill.name} → {pair.decode.name}: {pair.why}" for pair in self.pairs]
            return "no pair proven: " + _some([*sources, *pairs])
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
        return not self._was_ready

    async def watch(self, canary: Canary, tls: ssl.SSLContext | None = None) -> None:
        """Probe every worker and prove every pair, for ever, also those to come; one that hangs holds up no other.

        tls: whom to believe, where workers speak it.
        """
        running: dict[Member | Pair, asyncio.Task[None]] = {}
        # Probes on the requests' connections would keep all of them young: each takes the one that is idle longest.
        connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=tls or True)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
            while True:
                self._changed.clear()
                # One that left is probed as long as it lives: requests that it still runs learn of its end.
                alive = [*self.members, *(member for member in self._left if member.healthy)]
                steps: dict[Member | Pair, Callable[[], Awaitable[None]]] = {
                    **{member: partial(self._probe, session, member) for member in alive},
                    **{pair: partial(self._prove, pair, canary) for pair in self.pairs},
                }
                for gone in running.keys() - steps.keys():
                    running.pop(gone).cancel()
                for new in steps.keys() - running.keys():
                    running[new] = tasks.create_task(_forever(steps[new]))
                await self._changed.wait()

    async def _probe(self, session: aiohttp.ClientSession, member: Member) -> None:
        try:
            async with session.get(f"{member.url}/health", **_probing(member)) as answer:
                healthy, why = answer.status == 200, f"/health answers {answer.status}"
            if healthy and member.fingerprint:  # it has a supervisor, who knows what the engine does not
                async with session.get(f"{member.admin_url}/ready", **_probing(member)) as answer:
                    if answer.status != 200:
                        healthy, why = False, str((await answer.json())["state"])
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError, TypeError) as error:
            healthy, why = False, f"{type(error).__name__} at {member.url}/health"
        if healthy != member.healthy:
            log.info("event=worker worker=%s healthy=%s why=%r", member.name, healthy, why)
            if healthy:  # it may have been replaced. Or only frozen: its salt stays, which costs a new one nothing
                self.identify(member, None)
                self.routing.came_back(member)
        if healthy and not member.fingerprint:
            await self._ask_who(session, member)
        member.why, member.healthy = why, healthy
        if not healthy:
            for pair in self._pairs_of.get(member, ()):
                pair.doubt(f"{member.name} is not healthy")
            if member in self._left:
                self._changed.set()

    async def _ask_who(self, session: aiohttp.ClientSession, member: Member) -> None:
        try:
            async with session.get(f"{member.admin_url}/hyperpd/fingerprint", **_probing(member)) as answer:
                document = await answer.json()
                fingerprint = pairing.read(document)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            if not member.healthy:  # said once, tried again with every probe
                log.warning("event=no_fingerprint worker=%s detail=%r", member.name, described(error))
            return
        member.recipe_digest = str(document.get("recipe_digest", ""))
        self.identify(member, fingerprint)

    async def _prove(self, pair: Pair, canary: Canary) -> None:
        healthy = pair.prefill.healthy and pair.decode.healthy
        if not healthy or pair.proven or pair.broken or time.monotonic() < pair.try_after_s:
            return
        doubts = pair.doubts
        try:
            await canary(pair)
        except (HyperpdError, aiohttp.ClientError, TimeoutError) as error:
            pair.doubt(f"canary: {described(error)}")
            pair.try_after_s = time.monotonic() + _RETRY_PAIR_S
        else:
            if pair.doubts != doubts:  # it says nothing of what the workers have become since it was sent
                return
            pair.why, pair.proven = "canary came through", True
        log.info(
            "event=pair prefill=%s decode=%s proven=%s why=%r",
            *(pair.prefill.name, pair.decode.name, pair.proven, pair.why),
        )

    def status(self) -> dict[str, Any]:
        """Workers, pairs and sources that could not be resolved, as JSON."""
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
            "unresolved": dict(self.unresolved),
        }


def _probing(member: Member) -> dict[str, Any]:
    """How a worker is asked: it sends nobody elsewhere."""
    timeout = aiohttp.ClientTimeout(total=_PROBE_TIMEOUT_S)
    return {"timeout": timeout, "server_hostname": member.certified, "allow_redirects": False}


def _some(reasons: list[str]) -> str:
    more = [f"and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else []
    return "; ".join([*reasons[:_SHOWN], *more]) or "there is none"


async def _sent(_: Any, context: Any, __: Any) -> None:
    """Note in a request's own dictionary that its body goes out: from here on closing it tells the worker."""
    if context.trace_request_ctx is not None:
        context.trace_request_ctx["at_s"] = time.monotonic()


async def _forever(step: Callable[[], Awaitable[None]]) -> None:
    while True:
        await step()
        await asyncio.sleep(_PROBE_EVERY_S)


@contextlib.asynccontextmanager
async def session(tls: ssl.SSLContext | None = None) -> Any:
    """The client for both legs: no limits of its own. tls: whom to believe, where workers speak it."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    traces = aiohttp.TraceConfig()
    traces.on_request_chunk_sent.append(_sent)  # headers are only buffered when they are said to be sent
    async with upstream.session(tls, timeout=timeout, trace_configs=[traces]) as opened:
        yield opened
