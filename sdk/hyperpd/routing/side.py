"""One role's half of a decision: its workers, what they have cached, its policy, and the booking of their loads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from hyperpd.routing import costs
from hyperpd.routing.choice import Candidate, Leg
from hyperpd.routing.estimates import Mean, Ratio
from hyperpd.routing.fleet import Field, Fleet
from hyperpd.routing.knowledge import Knowledge
from hyperpd.routing.policies import Policy
from hyperpd.routing.prefix import View
from hyperpd.routing.request import Request
from hyperpd.routing.worker import Worker

_PACE_MEMORY_S = 20.0  # busy seconds over which a worker's pace is averaged
_STEP_MEMORY = 50  # requests


class Side:
    """Decode (or aggregated), or prefill."""

    def __init__(self, knowledge: Knowledge, policy: Policy, view: View, *, generates: bool) -> None:
        self.knowledge = knowledge
        self.policy = policy
        self.view = view
        self.fleet = Fleet()
        self._generates = generates
        self._turn = 0

    def join(self, name: str, cache_blocks: int) -> Worker:
        """A worker with an empty cache."""
        start = self.knowledge.calibration
        worker = self.fleet.join(
            name,
            lambda name, index: Worker(
                name, index, Ratio(1.0, _PACE_MEMORY_S), Mean(start.step_s, _STEP_MEMORY), self._generates
            ),
        )
        worker.cache_tokens = cache_blocks * self.knowledge.block_tokens
        self.view.join(worker.index, cache_blocks)
        self.policy.changed(worker)
        return worker

    def leave(self, name: str) -> Worker:
        """A worker has gone."""
        worker = self.fleet.named[name]
        self.fleet.leave(worker)
        self.view.leave(worker.index)
        self.policy.left(worker)
        return worker

    def empty(self, name: str) -> None:
        """What a worker has cached is of no use any more."""
        self.view.empty(self.fleet.named[name].index)

    def resize(self, name: str, cache_blocks: int) -> None:
        """A worker's cache is of this size."""
        worker = self.fleet.named[name]
        cache_tokens = cache_blocks * self.knowledge.block_tokens
        if cache_tokens != worker.cache_tokens:
            worker.cache_tokens = cache_tokens
            self.view.resize(worker.index, cache_blocks)
            self.policy.changed(worker)

    def without(self, avoid: Collection[str], at: str | None = None) -> int:
        """Mask of the workers that may be picked. at: the only one, by name."""
        mask = self.fleet.allowed
        if at is not None:
            mask &= self.fleet.named[at].bit if at in self.fleet.named else 0
        for name in avoid:
            if name in self.fleet.named:
                mask &= ~self.fleet.named[name].bit
        return mask

    def field(self, request: Request, mask: int, now_s: float) -> Field:
        """The candidates of a mask, by what they have cached. At least one prompt token is always computed."""
        block = self.knowledge.block_tokens
        most = (request.tokens - 1) // block
        matches = self.view.match(request.blocks, now_s) if request.blocks and mask else ()
        return Field(self.fleet, mask, [(min(held, most) * block, holders) for held, holders in matches])

    def lacked_tokens(self, worker: Worker, request: Request, now_s: float) -> int:
        """Of a prompt, what a worker has not cached: all of it, once it has left."""
        if not self.fleet.has(worker):
            return request.tokens
        return request.tokens - self.field(request, worker.bit, now_s).cached_tokens(worker)

    def pick(self, request: Request, field: Field, now_s: float) -> Leg:
        """The policy's worker, of the candidates."""
        worker = self.policy.pick(request, field, now_s)
        cached = field.cached_tokens(worker)
        uncached = request.tokens - cached
        return Leg(worker, cached, uncached, self.knowledge.calibration.prefill_s(uncached, cached))

    def explain(
        self, request: Request, field: Field, avoid: Collection[str], now_s: float
    ) -> Mapping[str, Candidate | str]:
        """Every worker's score and cache, or why it is no candidate."""
        cached = {worker.name: tokens for worker, tokens in field.each()}
        scores = {
            worker.name: Candidate(score, cached[worker.name])
            for worker, score in self.policy.scores(request, field, now_s)
        }
        out: dict[str, Candidate | str] = {}
        for name, worker in self.fleet.named.items():
            why = ", ".join(self.fleet.why_out(worker)) or ("avoided" if name in avoid else "no open pair")
            out[name] = scores.get(name, why)
        return out

    def begin(self, worker: Worker) -> None:
        """A request generates on it."""
        worker.running += 1
        self._changed(worker)

    def end(self, worker: Worker) -> None:
        """It does no longer."""
        worker.running -= 1
        self._changed(worker)

    def book(self, worker: Worker, leg: Leg | None, now_s: float) -> None:
        """A request has been sent; leg: what of its prompt is to be computed, None: nothing."""
        self._turn += 1
        worker.picked = self._turn
        worker.waiting += 1
        if leg:
            known = self.knowledge
            known.prefill_s.observe(leg.prefill_s)
            late = worker.backlog_s(now_s) / known.slo.ttft_s
            if late < costs.GIVEN_UP:  # who waits longer says nothing of the others
                known.prefill_pressure.observe(min(1.0, late))
            worker.prefill_tokens += leg.uncached_tokens
            worker.prefill_s += leg.prefill_s
            worker.clear_s = max(worker.clear_s, now_s) + leg.prefill_s / worker.pace.value
        self._changed(worker)

    def done(self, worker: Worker, leg: Leg | None, sent_s: float, now_s: float, *, seen: bool = True) -> None:
        """Its prefill is done; engines take prompts in the order of arrival, so all sent before are done as well.

        seen: it was observed, and so teaches the worker's pace.
        """
        worker.waiting -= 1
        if leg:
            self._take_back(worker, leg)
            # Where memory was short, or other routers' prompts waited, it may have waited for that.
            short = worker.generates and worker.held_tokens > costs.FULL * worker.cache_tokens
            if seen and not short and not worker.foreign_waiting:
                worker.pace.observe(leg.prefill_s, now_s - max(worker.freed_s, sent_s))
            worker.freed_s = now_s
            worker.clear_s = now_s + worker.prefill_s / worker.pace.value
        self._changed(worker)

    def cancel(self, worker: Worker, leg: Leg | None, now_s: float) -> None:
        """It will not be prefilled here."""
        worker.waiting -= 1
        if leg:
            self._take_back(worker, leg)
            worker.clear_s = min(worker.clear_s, now_s + worker.prefill_s / worker.pace.value)
        self._changed(worker)

    def holds(self, worker: Worker, blocks: Sequence[int], now_s: float) -> None:
        """A worker has these in its cache, or soon will."""
        if blocks and self.fleet.has(worker):
            self.view.sent(worker.index, blocks, now_s)

    def scraped(self, name: str, running: int, waiting: int, kv_usage: float, now_s: float) -> None:
        """What of an engine's requests is not of this router is other routers'.

        Engines count as running what is before its first token too, so only the sums can be compared. Of those that
        wait, each is taken to need as long as a usual prompt of this router.
        """
        worker = self.fleet.named[name]
        foreign = max(0, running + waiting - worker.running - worker.waiting)
        worker.foreign_waiting = min(foreign, max(0, waiting - worker.waiting))
        worker.foreign_running = foreign - worker.foreign_waiting
        foreign_s = worker.foreign_waiting * self.knowledge.prefill_s.value / worker.pace.value
        worker.foreign_clear_s = now_s + foreign_s
        worker.kv_unbooked = max(0, round(kv_usage * worker.cache_tokens) - worker.kv_tokens)
        self._changed(worker)

    @staticmethod
    def _take_back(worker: Worker, leg: Leg) -> None:
        worker.prefill_tokens -= leg.uncached_tokens
        worker.prefill_s = worker.prefill_s - leg.prefill_s if worker.prefill_tokens else 0.0  # no rounding is left

    def _changed(self, worker: Worker) -> None:
        if self.fleet.has(worker):
            self.policy.changed(worker)
