"""Which workers serve a request: routing's decisions over the pool's members, and what they teach it.

`Routing` owns the one `Router` of this process. The pool tells it who is there, well and proven, scrapes tell it what
engines say; `Passage` is a request on its way, and tells what happens to it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any

from hyperpd.errors import NoWorkerAvailable
from hyperpd.recipe import Recipe
from hyperpd.routing.choice import Verdict
from hyperpd.routing.deciders import DECIDERS, Decider, UncachedTokens
from hyperpd.routing.events import EventView
from hyperpd.routing.fleet import members
from hyperpd.routing.flight import Flight
from hyperpd.routing.knowledge import SLO, Knowledge
from hyperpd.routing.policies import POLICIES
from hyperpd.routing.prefix import PrefixView, View
from hyperpd.routing.request import Request
from hyperpd.routing.router import Role, Router
from hyperpd.routing.side import Side
from hyperpd.routing.worker import Worker
from hyperpd_runtime.gateway import calibration, telemetry
from hyperpd_runtime.gateway.explained import Explained
from hyperpd_runtime.gateway.member import Member, Pair
from hyperpd_runtime.gateway.scrape import Figures
from hyperpd_runtime.gateway.telemetry import Record

log = logging.getLogger("hyperpd.gateway")
_TTFT_MS, _ITL_MS = 2000.0, 50.0  # where the recipe has no objective
_CACHE_TOKENS = 1 << 20  # of a worker that has not been scraped yet
_TTL_S = 600.0
_EXPLAINED = 32  # workers
_REASONS = {"ticket_old": "ticket_expired", "no_proven_pair": "pair_open"}  # of a recompute, where named otherwise


class Routing:
    """One per gateway process. Every decision is booked as it is made.

    None looks at all workers, but to keep every candidate's score for /explain: always where there are at most 32,
    in a larger fleet where x-hyperpd-explain: 1 asks for it.
    """

    def __init__(self, recipe: Recipe) -> None:
        gateway, slo = recipe.gateway, recipe.slo
        start, self._rough = calibration.start(recipe)
        self._kv_bytes_said = bool(gateway.calibration and gateway.calibration.kv_bytes_per_token)
        objectives = SLO((slo.ttft_ms or _TTFT_MS) / 1000, (slo.itl_ms or _ITL_MS) / 1000)
        view: Callable[[], View] = EventView if gateway.prefix_view == "exact" else partial(PrefixView, _TTL_S)
        decider: Callable[[Knowledge], Decider] = DECIDERS[gateway.decider]
        if decider is UncachedTokens:
            decider = partial(UncachedTokens, threshold_tokens=gateway.threshold_tokens)
        knowledge = Knowledge(objectives, start, recipe.kv_transfer.block_size_tokens)
        self.router = Router(knowledge, POLICIES[gateway.policy], decider, view)
        self.explained = Explained(objectives.ttft_s)
        self._rules = {"policy": gateway.policy, "decider": gateway.decider, "prefix_view": gateway.prefix_view}
        self._names: dict[Member, str] = {}
        self._members: dict[Worker, Member] = {}
        self._changed = False  # who is proven, since it was last sorted out who may decode
        self._moved: dict[Member, set[Pair]] = defaultdict(set)  # that KV has gone through since that end was scraped
        telemetry.CALIBRATED.set(not self._rough)
        if self._rough:
            log.warning(
                "event=uncalibrated rough=%s hint='put what hyperpd calibrate writes under gateway.calibration'",
                ",".join(self._rough),
            )

    # What the pool says.

    def join(self, member: Member) -> None:
        """A member of the pool, until it leaves."""
        side = self._side(member)
        name = member.name if member.name not in side.fleet.named else f"{member.name} {member.url}"
        self._names[member] = name
        blocks = _CACHE_TOKENS // self.router.knowledge.block_tokens
        self._members[self.router.join(_role(member), name, blocks)] = member
        self.sift(member)

    def leave(self, member: Member) -> None:
        """It is no member any more; its flights may still end."""
        name = self._names.pop(member)
        del self._members[self._side(member).fleet.named[name]]
        self.router.leave(_role(member), name)
        self._moved.pop(member, None)
        self._changed = True

    def sift(self, member: Member) -> None:
        """Whether it may be picked has changed."""
        role, name, draining = _role(member), self._names[member], member.why == "draining"
        self.router.keep_out(role, name, "unhealthy", not member.healthy and not draining)
        self.router.keep_out(role, name, "draining", not member.healthy and draining)
        self.router.keep_out(role, name, "fingerprint", not member.belongs)
        self._changed = True

    def judge(self, pair: Pair) -> None:
        """Whether it is proven has changed."""
        tell = self.router.prove if pair.proven else self.router.doubt
        tell(self._names[pair.prefill], self._names[pair.decode])
        self._changed = True

    def identified(self, member: Member) -> None:
        """It has said what it is: of the size of its KV that is taken before a rough value."""
        known = self.router.knowledge
        told = calibration.kv_bytes_per_token(member.fingerprint) if member.fingerprint else None
        if told and not self._kv_bytes_said:
            known.calibration = replace(known.calibration, kv_bytes_per_token=told)

    def empty(self, member: Member) -> None:
        """No request from here on finds what it has cached."""
        if member in self._names:
            self.router.empty(_role(member), self._names[member])

    def came_back(self, member: Member) -> None:
        """It may be another engine now: what it said is over, and so is a guess at what it has cached."""
        if member in self._names:
            self.unread(member)
        if isinstance(self._side(member).view, PrefixView):
            self.empty(member)

    # What engines say.

    def scraped(self, member: Member, said: Figures, moved_bytes: float, moving_s: float) -> None:
        """moved_bytes, moving_s: by NIXL since it was scraped before, through whichever pairs were used."""
        role, name, now_s = _role(member), self._names[member], time.monotonic()
        if said.cache_blocks and said.block_tokens:
            tokens = said.cache_blocks * said.block_tokens
            self.router.resize(role, name, tokens // self.router.knowledge.block_tokens)
        self.router.scraped(role, name, said.running, said.waiting, said.kv_usage, now_s)
        if moved_bytes > 0 and moving_s > 0:  # else what is under way is counted by a later scrape
            pairs = [pair for pair in self._moved.pop(member, ()) if {pair.prefill, pair.decode} <= self._names.keys()]
            for pair in pairs:  # alike, since nobody says which moved how much
                share = moved_bytes / len(pairs), moving_s / len(pairs)
                self.router.transferred(self._names[pair.prefill], self._names[pair.decode], *share, now_s)

    def unread(self, member: Member) -> None:
        """Its engine says nothing now: only what this gateway has booked counts, until it does again."""
        role, name = _role(member), self._names[member]
        worker = self._side(member).fleet.named[name]
        self.router.scraped(role, name, worker.running, worker.waiting, 0.0, time.monotonic())

    # What requests ask.

    def choose(
        self,
        request: Request,
        record: Record,
        *,
        avoid: Collection[Member] = (),
        at: Member | None = None,
        settled: Verdict | None = None,
    ) -> Flight:
        """Decide, and book it. Raises NoWorkerAvailable. See Router.choose."""
        if self._changed:
            self._changed = False
            self._prefer_proven()
        decide = partial(
            self.router.choose,
            request,
            time.monotonic(),
            avoid=[self._names[member] for member in avoid if member in self._names],
            at=self._names.get(at, "") if at else None,
            settled=settled,
            explain=record.explain or len(self._members) <= _EXPLAINED,
        )
        try:
            flight = decide()
        except NoWorkerAvailable:  # one that no pair is proven of can answer alone, which is better than nobody
            self._allow_unproven()
            self._changed = True
            flight = decide()
        self.explained.put(record.request_id, flight)
        return flight

    def member(self, worker: Worker) -> Member:
        """Of a flight that has just been chosen."""
        return self._members[worker]

    def seat(self, member: Member) -> tuple[View, int] | None:
        """What is known of the caches of its side's workers, and its place there; None where it has left."""
        side = self._side(member)
        return (side.view, side.fleet.named[self._names[member]].index) if member in self._names else None

    def others(self, decode: Worker, prefill: Member) -> bool:
        """Whether another prefill worker than this one has an open way to `decode`."""
        return bool(self.router.prefill.without([self._names.get(prefill, "")]) & self.router.pairs.open_to(decode))

    def used(self, pair: Pair) -> None:
        """KV has begun to move through it. One that has left is not scraped any more, so nothing waits for that."""
        if not {pair.prefill, pair.decode} <= self._names.keys():
            return
        self._moved[pair.prefill].add(pair)
        self._moved[pair.decode].add(pair)

    def status(self) -> dict[str, Any]:
        """The rules, and whether what they start from was measured, as JSON."""
        return {**self._rules, "calibrated": not self._rough, "rough": self._rough}

    def _side(self, member: Member) -> Side:
        return self.router.prefill if member.role == "prefill" else self.router.decode

    def _prefer_proven(self) -> None:
        """A decode worker that has just joined is tried before it is used; where none is proven, all answer alone."""
        self._allow_unproven()
        fleet, pairs = self.router.decode.fleet, self.router.pairs
        named = {worker: name for name, worker in fleet.named.items()}
        ways = self.router.prefill.fleet.allowed
        allowed = [fleet.at(index) for index in members(fleet.allowed)]
        unproven = [worker for worker in allowed if not pairs.open_to(worker) & ways]
        if len(unproven) < len(allowed):
            for worker in unproven:
                self.router.keep_out("decode", named[worker], "breaker")

    def _allow_unproven(self) -> None:
        for name in self.router.decode.fleet.named:
            self.router.keep_out("decode", name, "breaker", False)


class Passage:
    """One request, or one part of it, on its way: where it goes, and what becomes of it there.

    Ends with its record, whatever happened.
    """

    def __init__(
        self,
        routing: Routing,
        request: Request,
        record: Record,
        *,
        at: Member | None = None,
        settled: Verdict | None = None,
    ) -> None:
        """at, settled: see Router.choose. Raises NoWorkerAvailable."""
        self._routing, self._request, self._record = routing, request, record
        self._guess: asyncio.TimerHandle | None = None
        self._take(routing.choose(request, record, at=at, settled=settled))
        record.on_first.append(self._first)
        record.on_end.append(self._end)

    @property
    def verdict(self) -> Verdict:
        """The decider's word."""
        return self._flight.choice.verdict

    def started(self) -> None:
        """The prompt goes to prefill."""
        self._flight.started(time.monotonic())

    def prefilled(self, pair: Pair) -> None:
        """The ticket is there."""
        self._flight.prefilled(time.monotonic())
        self._routing.used(pair)

    def sent(self, *, stream: bool) -> None:
        """The request goes to decode. When a whole answer's first token comes is only guessed: as it was predicted."""
        self._stop()
        self._flight.started(time.monotonic())  # where decode computes the prompt
        if not stream:
            left_s = self._flight.choice.decode.worker.clear_s - time.monotonic()
            self._guess = asyncio.get_running_loop().call_later(max(left_s, 0.0), self._first, False)

    def fall_back(self, why: str) -> None:
        """Decode computes the prompt itself, although prefill was meant to; why: as `Record.recompute` counts it."""
        self._stop()
        self._flight.fall_back(time.monotonic())
        self._record.recompute(why)
        self._record.reason = _REASONS.get(why, why)

    def another_prefill(self) -> bool:
        """To another prefill worker after one has failed, or to the same where it is the only one; False: to none."""
        failed, decode = self.prefill, self.decode
        assert failed
        avoid = [failed] if self._routing.others(self._flight.choice.decode.worker, failed) else []
        try:
            flight = self._routing.choose(
                self._request, self._record, avoid=avoid, at=decode, settled=Verdict(True, "remote")
            )
        except NoWorkerAvailable:  # decode itself is gone: it is asked all the same
            return False
        self._flight.end(time.monotonic())
        self._take(flight)
        return self.prefill is not None

    def another_decode(self) -> Member:
        """To another worker that decodes, with no ticket; to the same where there is no other."""
        settled = Verdict(False, "decode_failed")
        try:
            flight = self._routing.choose(self._request, self._record, avoid=[self.decode], settled=settled)
        except NoWorkerAvailable:
            self._flight.fall_back(time.monotonic())
            return self.decode
        self._stop()
        self._flight.end(time.monotonic())
        self._take(flight)
        return self.decode

    def _take(self, flight: Flight) -> None:
        choice, member = flight.choice, self._routing.member
        self._flight = flight
        self.decode: Member = member(choice.decode.worker)
        self.prefill: Member | None = member(choice.prefill.worker) if choice.prefill else None
        self._record.reason = choice.reason

    def _first(self, seen: bool = True) -> None:
        self._stop()
        self._flight.first_token(time.monotonic(), seen=seen)

    def _stop(self) -> None:
        if self._guess:
            self._guess.cancel()
            self._guess = None

    def _end(self) -> None:
        self._stop()
        telemetry.ROUTING.labels(self._record.reason).inc()
        tokens = self._record.output_tokens()
        if tokens:
            self._flight.first_token(time.monotonic(), seen=False)
        self._flight.end(time.monotonic(), tokens)


def _role(member: Member) -> Role:
    return "prefill" if member.role == "prefill" else "decode"
