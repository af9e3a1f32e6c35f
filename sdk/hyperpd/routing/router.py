"""One decision: decode's worker first, then whether a remote prefill pays, then which prefill worker."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

from hyperpd.errors import NoWorkerAvailable
from hyperpd.routing.choice import Choice, Explanation, Verdict
from hyperpd.routing.deciders import Decider, Offer
from hyperpd.routing.fleet import Field, Filter
from hyperpd.routing.flight import Flight
from hyperpd.routing.knowledge import Knowledge
from hyperpd.routing.ledger import Ledger
from hyperpd.routing.pairs import Pairs
from hyperpd.routing.policies import Policy
from hyperpd.routing.prefix import PrefixView, View
from hyperpd.routing.request import Request
from hyperpd.routing.sessions import Session, Sessions
from hyperpd.routing.side import Side
from hyperpd.routing.worker import Worker

Role = Literal["decode", "prefill"]
_TTL_S = 600.0


class Router:
    """All decisions of one gateway process, or of one simulated one. Not for several threads.

    `decode`: the side that answers, aggregated workers too; `prefill`: the other, which may stay empty.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        policy: Callable[[Knowledge], Policy],
        decider: Callable[[Knowledge], Decider],
        view: Callable[[], View] = lambda: PrefixView(_TTL_S),
    ) -> None:
        """policy, decider: see POLICIES and DECIDERS. view: makes one side's view of the prefix caches."""
        self.knowledge = knowledge
        self.decode = Side(knowledge, policy(knowledge), view(), generates=True)
        self.prefill = Side(knowledge, policy(knowledge), view(), generates=False)
        self.decider = decider(knowledge)
        self.pairs = Pairs(knowledge.calibration.pair_bytes_per_s)
        self.sessions = Sessions(knowledge.block_tokens)
        self._disaggregated = False
        self._ledger = Ledger(knowledge, self.decode, self.prefill, self.pairs, self.sessions)

    def join(self, role: Role, name: str, cache_blocks: int) -> Worker:
        """A worker whose KV cache holds so many blocks of `block_tokens`. Its pairs are closed until proven."""
        self._disaggregated |= role == "prefill"
        return self._side(role).join(name, cache_blocks)

    def leave(self, role: Role, name: str) -> None:
        """A worker has gone; its flights may still end."""
        forget = self.pairs.forget_prefill if role == "prefill" else self.pairs.forget_decode
        forget(self._side(role).leave(name))

    def keep_out(self, role: Role, name: str, why: Filter, out: bool = True) -> None:
        """Filter a worker, or no longer."""
        side = self._side(role)
        side.fleet.keep_out(side.fleet.named[name], why, out)

    def empty(self, role: Role, name: str) -> None:
        """What a worker has cached is of no use to any request from here on."""
        self._side(role).empty(name)

    def resize(self, role: Role, name: str, cache_blocks: int) -> None:
        """A worker's KV cache holds so many blocks of `block_tokens`, as it turns out."""
        self._side(role).resize(name, cache_blocks)

    def prove(self, prefill: str, decode: str) -> None:
        """A probe came through this pair: it may be used."""
        self.pairs.prove(self.prefill.fleet.named[prefill], self.decode.fleet.named[decode])

    def doubt(self, prefill: str, decode: str) -> None:
        """This pair may not be used until it is proven again."""
        self.pairs.doubt(self.prefill.fleet.named[prefill], self.decode.fleet.named[decode])

    def scraped(self, role: Role, name: str, running: int, waiting: int, kv_usage: float, now_s: float) -> None:
        """What a worker's engine says: requests that run and wait, and its KV cache's usage, 0 to 1."""
        self._side(role).scraped(name, running, waiting, kv_usage, now_s)

    def transferred(self, prefill: str, decode: str, moved_bytes: float, seconds: float, now_s: float) -> None:
        """What an engine says of its transfers through a pair: bytes and the time they took, since it last said so."""
        ends = self.prefill.fleet.named[prefill], self.decode.fleet.named[decode]
        self.pairs.moved(*ends, moved_bytes, seconds, now_s)

    def choose(
        self,
        request: Request,
        now_s: float,
        *,
        avoid: Collection[str] = (),
        at: str | None = None,
        settled: Verdict | None = None,
        explain: bool = False,
    ) -> Flight:
        """Decide, and book it. Raises NoWorkerAvailable.

        avoid: workers not to pick, by name. at: the worker that decodes, by name, where that is no question any more.
        settled: the decider's word, where it is not asked: the request's shape or an operator decides. Remote it is
        only where there is an open pair.
        """
        field = self.decode.field(request, self.decode.without(avoid, at), now_s)
        if not field.mask:
            raise NoWorkerAvailable("no worker may decode: all are filtered; see hyperpd status", retry_after_s=5)
        session = self.sessions.of(request, now_s)
        if session:
            field = self._with_session(field, session, request)
        decode = self.decode.pick(request, field, now_s)
        ways = self.prefill.fleet.allowed and self.prefill.without(avoid)
        open_ways = ways & self.pairs.open_to(decode.worker)
        offered: list[tuple[Field, Offer]] = []

        def offer() -> Offer:
            """The best prefill worker; looked for once."""
            if not offered:
                candidates = self.prefill.field(request, open_ways, now_s)
                leg = self.prefill.pick(request, candidates, now_s)
                offered.append((candidates, Offer(leg, self.pairs.bytes_per_s(leg.worker, decode.worker, now_s))))
            return offered[0][1]

        if not self._disaggregated:
            verdict = Verdict(False, "aggregated")
        elif settled and not settled.remote:
            verdict = settled
        elif not ways:
            verdict = Verdict(False, "no_prefill_worker")
        elif not open_ways:
            verdict = Verdict(False, "pair_open")
        else:
            verdict = settled or self.decider.decide(request, decode, offer, now_s)
        choice = Choice(decode, offer().leg if verdict.remote else None, verdict)
        explanation = None
        if explain:
            explanation = Explanation(
                self.decode.explain(request, field, avoid, now_s),
                self.prefill.explain(request, offered[0][0], avoid, now_s) if offered else {},
                choice,
            )
        return Flight(self._ledger, request, choice, now_s, explanation)

    def _side(self, role: Role) -> Side:
        return self.decode if role == "decode" else self.prefill

    def _with_session(self, field: Field, session: Session, request: Request) -> Field:
        """The session's worker holds the answer as well, if it still holds the prompt."""
        bit = session.worker.bit
        if not field.mask & bit or not self.decode.fleet.has(session.worker):
            return field
        block = self.knowledge.block_tokens
        cached = field.cached_tokens(session.worker)
        if cached < min(session.prompt_blocks, (request.tokens - 1) // block) * block:
            return field
        held = min(session.held_tokens, (request.tokens - 1) // block * block)
        return field if held <= cached else field.raised(bit, held)
