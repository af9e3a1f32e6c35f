"""Requests through routers, engines and network, event by event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import cycle

from hyperpd.plan.simulate.engine import Engine
from hyperpd.plan.simulate.fleet import Fleet
from hyperpd.plan.simulate.network import Link, Network
from hyperpd.plan.simulate.outcome import Outcome, Served
from hyperpd.plan.simulate.sequence import Sequence as Running
from hyperpd.plan.trace import BLOCK_TOKENS, Request
from hyperpd.routing.flight import Flight
from hyperpd.routing.request import Request as Asked
from hyperpd.routing.router import Role, Router

_SCRAPE_S = 5.0  # how often a router sees its engines' own figures


@dataclass(frozen=True, slots=True)
class Window:
    """What is measured: requests that arrive from `start_s` on within `length_s`. Before it caches fill."""

    start_s: float
    length_s: float


def worker_names(fleet: Fleet) -> dict[str, list[str]]:
    """The workers' names by role, as in prefill-0."""
    return {role.name: [f"{role.name}-{index}" for index in range(role.workers)] for role in fleet.roles}


def simulate(fleet: Fleet, requests: Sequence[Request], routers: Sequence[Router], window: Window) -> Outcome:
    """Serve `requests`, in order of arrival, to their ends. Nothing but `routers` draws lots: same in, same out.

    routers: of one gateway each, which take requests in turn and know of each other's only what engines say.
    """
    return _Run(fleet, routers, window).through(requests)


class _Story:
    """One request on its way."""

    __slots__ = ("blocks", "flight", "prefilling", "request", "served")

    def __init__(self, request: Request, blocks: tuple[int, ...], flight: Flight, served: Served) -> None:
        self.request = request
        self.blocks = blocks  # whole ones
        self.flight = flight
        self.served = served
        self.prefilling: Running | None = None  # holds its blocks on the prefill worker


class _Run:
    """The clock, and what happens at its times."""

    def __init__(self, fleet: Fleet, routers: Sequence[Router], window: Window) -> None:
        self._fleet = fleet
        self._turns = cycle(routers)
        self._routers = routers
        self._window = window
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = 0
        self._engines: dict[str, Engine] = {}
        self._links: dict[str, Link] = {}
        self._moved_bytes = 0.0
        self._served: list[Served] = []
        self._now_s = 0.0
        self._arriving = True
        self._network = Network(self._at)
        watch = (window.start_s, window.start_s + window.length_s)
        for role in fleet.roles:
            for name in worker_names(fleet)[role.name]:
                self._engines[name] = Engine(role.step, role.limits, self._at, self, watch)
                self._links[name] = Link(role.link_bytes_s)

    def through(self, requests: Sequence[Request]) -> Outcome:
        """All requests, and what became of those in the window."""
        events, arrive = self._events, self._arrive
        for turn, router in enumerate(self._routers, 1):  # gateways begin at different times
            self._at(_SCRAPE_S * turn / len(self._routers), partial(self._scrape, router))
        for request in requests:
            arrival_s = request.arrival_s
            while events and events[0][0] <= arrival_s:
                now_s, _, act = heappop(events)
                act(now_s)
            arrive(arrival_s, request)
        self._arriving = False
        while events:
            self._now_s, _, act = heappop(events)
            act(self._now_s)
        itl: Counter[int] = Counter()
        for engine in self._engines.values():
            itl.update(engine.itl)
        start_s = self._window.start_s
        end_s = start_s + self._window.length_s
        return Outcome(
            served=[one for one in self._served if start_s <= one.request.arrival_s < end_s],
            length_s=self._window.length_s,
            itl=itl,
            preemptions=sum(engine.preemptions for engine in self._engines.values()),
            moved_bytes=self._moved_bytes,
            end_s=self._now_s,
        )

    def _at(self, when_s: float, act: Callable[[float], None]) -> None:
        self._order += 1
        heappush(self._events, (when_s, self._order, act))

    def _arrive(self, now_s: float, request: Request) -> None:
        blocks = request.blocks[: request.input_tokens // BLOCK_TOKENS]
        flight = next(self._turns).choose(Asked(request.input_tokens, blocks), now_s)
        choice = flight.choice
        served = Served(request, choice.reason, choice.prefill is not None)
        self._served.append(served)
        story = _Story(request, blocks, flight, served)
        if choice.prefill:
            sequence = Running(story, "prefill", request.input_tokens, 1, blocks)
            self._engines[choice.prefill.worker.name].add(now_s, sequence)
        else:
            sequence = Running(story, "both", request.input_tokens, request.output_tokens, blocks)
            self._engines[choice.decode.worker.name].add(now_s, sequence)

    def first_token(self, now_s: float, sequence: Running) -> None:
        """A prefill leg hands off; any other answers the client."""
        story = sequence.owner
        assert isinstance(story, _Story)
        if sequence.leg != "decode":
            story.served.cached_tokens = sequence.cached_tokens
        if sequence.leg == "prefill":
            story.prefilling = sequence
            story.flight.prefilled(now_s)
            request = story.request
            following = Running(story, "decode", request.input_tokens, request.output_tokens, story.blocks)
            engine = self._engines[story.flight.choice.decode.worker.name]
            self._at(now_s + self._fleet.handoff_s, lambda then_s: engine.add(then_s, following))
        else:
            story.served.first_s = now_s
            story.flight.first_token(now_s)

    def load(self, now_s: float, sequence: Running, tokens: int) -> None:
        """Decode has room: move what it has not."""
        story = sequence.owner
        assert isinstance(story, _Story)
        choice, held = story.flight.choice, story.prefilling
        assert choice.prefill
        assert held
        sender, receiver = choice.prefill.worker.name, choice.decode.worker.name
        moved_bytes = self._fleet.kv.kv_bytes(tokens, self._fleet.block_size_tokens)
        self._moved_bytes += moved_bytes

        def arrived(then_s: float) -> None:
            self._engines[sender].free(then_s, held)
            self._engines[receiver].loaded(then_s, sequence)

        self._network.start(now_s, self._links[sender], self._links[receiver], moved_bytes, arrived)

    def ended(self, now_s: float, sequence: Running) -> None:
        """The last token went to the client."""
        story = sequence.owner
        assert isinstance(story, _Story)
        story.served.end_s = now_s
        story.flight.end(now_s, story.request.output_tokens)

    def _scrape(self, router: Router, now_s: float) -> None:
        for name, engine in self._engines.items():
            role: Role = "prefill" if name.startswith("prefill") else "decode"
            router.scraped(role, name, engine.running, engine.waiting, engine.cache.held_share, now_s)
        if self._arriving or len(self._events) >= len(self._routers):  # more is to come than the others' scrapes
            self._at(now_s + _SCRAPE_S, partial(self._scrape, router))
