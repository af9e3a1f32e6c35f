"""Policies held to their formulas written naively, and to what holds for each: no filtered worker, no herding."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpd.errors import NoWorkerAvailable, RecipeError
from hyperpd.plan.baselines import DECIDERS, POLICIES
from hyperpd.routing import costs
from hyperpd.routing.blocks import chain
from hyperpd.routing.calibration import Calibration
from hyperpd.routing.choice import Candidate, Verdict
from hyperpd.routing.fleet import Field
from hyperpd.routing.flight import Flight
from hyperpd.routing.knowledge import SLO, Knowledge
from hyperpd.routing.request import Request
from hyperpd.routing.router import Router
from hyperpd.routing.worker import Worker

BLOCK = 16
CALIBRATION = Calibration(10_000, 0.02, 327_680, 50e9, attention_s=1e-9)


def router_of(
    policy: str = "marginal_slo_cost", decider: str = "never", decodes: int = 4, prefills: int = 0, blocks: int = 2_000
) -> Router:
    """d0, d1, …, p0, p1, …; all pairs proven."""
    router = Router(Knowledge(SLO(2.0, 0.05), CALIBRATION, BLOCK), POLICIES[policy], DECIDERS[decider])
    for n in range(decodes):
        router.join("decode", f"d{n}", blocks)
    for n in range(prefills):
        router.join("prefill", f"p{n}", 2_000)
    for p in range(prefills):
        for d in range(decodes):
            router.prove(f"p{p}", f"d{d}")
    return router


def request(tokens: int, start: int = 0) -> Request:
    """A prompt of the ids from `start` on."""
    return Request(tokens, chain(range(start, start + tokens), BLOCK))


def loaded(router: Router, seed: int, requests: int) -> None:
    """Requests of all lengths, at every stage."""
    draw = random.Random(seed)
    flights = []
    for n in range(requests):
        tokens = draw.choice([100, 1_000, 8_000, 30_000])
        flights.append(router.choose(request(tokens, draw.randrange(4)), n * 0.05))
        if draw.random() < 0.6:
            flights[draw.randrange(len(flights))].first_token(n * 0.05)
        if draw.random() < 0.3:
            flights[draw.randrange(len(flights))].end(n * 0.05, draw.randrange(1, 500))
        if draw.random() < 0.2:
            name = draw.choice(list(router.decode.fleet.named))
            router.scraped("decode", name, 0, 0, draw.random(), n * 0.05)


def naive_cost(router: Router, one: Request, worker: Worker, cached: int, now_s: float) -> float:
    """As local, after, crowds and spread in routing/costs.py."""
    known = router.knowledge
    slo, start = known.slo, known.calibration
    u = one.tokens - cached
    calibrated_s = u / start.prefill_tokens_per_s + start.attention_s * u * (cached + u / 2)
    prefill_s = calibrated_s / worker.pace.value
    backlog_s = abs(worker.clear_s - now_s) if worker.prefill_tokens or worker.clear_s > now_s else 0.0
    output = known.output_tokens.value
    over = (worker.kv_tokens + worker.kv_unbooked + one.tokens + output) / worker.cache_tokens - 0.9
    memory_s = max(0, 2 * over * output * worker.step.value)
    late = (max(backlog_s, memory_s) + prefill_s + worker.step.value) / slo.ttft_s
    if late <= 0.7:
        first = late
    elif late <= 1:
        first = 0.7 + 1.3 * (late - 0.7) / 0.3
    else:
        first = 2 + 0.1 * math.log(late)
    prefills, memory = known.prefill_pressure.value, known.memory_pressure.value
    near = min(1, worker.step.value / slo.itl_s)
    held = known.fullness.value / worker.step.value if memory_s <= 10 * slo.ttft_s else 0
    taken = prefill_s * worker.decodes / output * (near**3 / slo.itl_s + held)
    scarce = prefills**1.5 / (prefills**1.5 + 0.1**1.5) * (1 - memory)
    busy = min(1, (backlog_s + calibrated_s) / (0.25 * slo.ttft_s))
    in_time = backlog_s < 10 * slo.ttft_s
    after = 1.5 * scarce * busy * in_time * calibrated_s / known.prefill_s.value
    crowds = 0 if memory_s > 10 * slo.ttft_s else 2 * memory * (one.tokens + output) / known.held_tokens.value
    there = worker.running + min(worker.waiting, 32)
    return first + taken + after + crowds + there / (there + 64)


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(0, 60), st.sampled_from([100, 1_000, 8_000, 30_000]))
def test_a_small_fleet_gets_the_least_cost_there_is(seed: int, workers: int, requests: int, tokens: int) -> None:
    router = router_of(decodes=workers)
    loaded(router, seed, requests)
    now_s, one = requests * 0.05, request(tokens, seed % 4)
    cached = dict.fromkeys(router.decode.fleet.named.values(), 0)
    for depth, mask in router.decode.view.match(one.blocks, now_s):
        for worker in cached:
            if mask & worker.bit:
                cached[worker] = min(depth * BLOCK, (tokens - 1) // BLOCK * BLOCK)
    expected = min(naive_cost(router, one, worker, held, now_s) for worker, held in cached.items())
    flight = router.choose(one, now_s, explain=True)
    assert flight.explanation
    scores = flight.explanation.decode
    assert min(one.score for one in scores.values() if isinstance(one, Candidate)) == pytest.approx(expected)
    taken = scores[flight.choice.decode.worker.name]
    assert isinstance(taken, Candidate)
    assert taken.cached_tokens == flight.choice.decode.cached_tokens
    assert taken.score <= expected + 0.01 + 1e-9


def test_a_large_fleet_gets_the_least_cost_too() -> None:
    router, draw, above = router_of(decodes=100, blocks=20_000), random.Random(1), []
    prefilling: list[tuple[float, Flight]] = []
    decoding: list[tuple[float, Flight]] = []
    for n in range(1_500):  # each prompt is done when its worker was thought to be clear
        now_s = n * 0.015
        flight = router.choose(request(draw.choice([100, 1_000, 8_000, 30_000]), n % 5), now_s, explain=n >= 1_200)
        prefilling.append((flight.choice.decode.worker.clear_s, flight))
        for due in [due for due in prefilling if due[0] <= now_s]:
            prefilling.remove(due)
            due[1].first_token(now_s)
            decoding.append((now_s + draw.uniform(1, 10), due[1]))
        for due in [due for due in decoding if due[0] <= now_s]:
            decoding.remove(due)
            due[1].end(now_s, 200)
        if flight.explanation:
            scores = flight.explanation.decode
            taken = scores[flight.choice.decode.worker.name]
            assert isinstance(taken, Candidate)
            above.append(taken.score - min(one.score for one in scores.values() if isinstance(one, Candidate)))
    # A rank stands still between two changes of a worker, so a few of many may be missed.
    assert sum(gap <= 0.01 + 1e-9 for gap in above) >= 295
    assert max(above) < 0.1


@pytest.mark.parametrize("workers", [6, 30])
def test_who_cannot_be_in_time_joins_the_late(workers: int) -> None:
    """Where prefills are scarce, one that is given up already takes it, though all others are idle; a prompt that can
    be in time goes to those."""
    router = router_of(decodes=workers, blocks=1_000_000)
    given_up = router.choose(Request(400_000), 0.0).choice.decode.worker
    known = router.knowledge
    for _ in range(1_000):
        known.prefill_pressure.observe(0.5)
        known.prefill_s.observe(known.calibration.prefill_s(5_000, 0))
    assert router.choose(Request(60_000), 0.0).choice.decode.worker is given_up
    assert router.choose(Request(5_000), 0.0).choice.decode.worker is not given_up  # it can be in time elsewhere


def test_what_waits_where_all_is_given_up_does_not_make_prefills_scarce() -> None:
    """It would go on and on: those that are sent there would keep the price up that sends the next ones there."""
    router = router_of(decodes=2, blocks=1_000_000)
    router.choose(Request(400_000), 0.0)
    before = router.knowledge.prefill_pressure.value
    for _ in range(20):
        router.choose(Request(400_000), 0.0)
    assert router.knowledge.prefill_pressure.value == before


def test_a_prefill_on_an_idle_worker_takes_little_from_others() -> None:
    """However scarce prefills are elsewhere: it will be idle again before many come."""
    router = router_of()
    known, worker = router.knowledge, router.decode.fleet.named["d0"]
    for _ in range(1_000):
        known.prefill_pressure.observe(1.0)
    slo_s, usual_s = known.slo.ttft_s, known.prefill_s.value
    short_s = costs.BUSY * slo_s / 100
    busy = costs.after(known, worker, costs.BUSY * slo_s, short_s)
    assert costs.after(known, worker, 0.0, short_s) == pytest.approx(busy / 100)
    assert busy == pytest.approx(costs.PREFILLS * short_s / usual_s, rel=0.05)
    assert costs.after(known, worker, costs.GIVEN_UP * slo_s, short_s) == 0


def test_of_late_prefill_workers_one_gives_way() -> None:
    """The latest takes who would be late on any, so that the others are in time again; one that decodes does not."""
    router = router_of(decider="always", decodes=1, prefills=3)
    known, workers = router.knowledge, router.prefill.fleet.named
    for worker, backlog_s in zip(workers.values(), (2.5, 3.0, 8.0), strict=True):
        worker.clear_s = backlog_s
    leg = router.choose(Request(2_000), 0.0).choice.prefill
    assert leg
    assert leg.worker is workers["p0"]  # nothing is scarce
    for _ in range(1_000):
        known.prefill_pressure.observe(1.0)
    leg = router.choose(Request(2_000), 0.0).choice.prefill
    assert leg
    assert leg.worker is workers["p2"]
    decode, slo_s = router.decode.fleet.named["d0"], known.slo.ttft_s
    prices = [costs.after(known, decode, late * slo_s, 0.1) for late in (1.0, 5.0, 9.9)]
    assert prices == [prices[0]] * 3
    falling = [costs.after(known, workers["p0"], late * slo_s, 0.1) for late in (1.0, 5.0, 9.9, 10.0)]
    assert falling == sorted(falling, reverse=True)
    assert (falling[0], falling[-1]) == (prices[0], 0)


def test_prompts_that_wait_for_memory_do_not_fill_prefill_workers() -> None:
    """Where decode is given up for it, they are prefilled there; not where all wait: who would be in time for it?"""
    router = router_of(decider="predicted_cost", decodes=2, prefills=1)
    known, given_up = router.knowledge, router.decode.fleet.named["d1"]
    prefill = router.prefill.fleet.named["p0"]
    for n in range(20):
        flight = router.choose(request(5_000, n * 5_000), 0.0, at="d1", settled=Verdict(False, "rule"))
        flight.first_token(0.0, seen=False)
    short_s, limit_s = costs.memory_s(known, given_up, 5_000), costs.GIVEN_UP * known.slo.ttft_s
    assert short_s > limit_s
    for scarce, remote in ((0.0, False), (1.0, True)):
        for _ in range(2_000):
            known.memory_pressure.observe(scarce)
        flight = router.choose(Request(5_000), 0.0, at="d1")
        assert bool(flight.choice.prefill) is remote
        flight.end(0.0)
    for _ in range(2_000):
        known.memory_pressure.observe(0.0)
    share = 5_000 / prefill.cache_tokens
    price = costs.pinned(known, prefill, 5_000, limit_s + 3.0, limit_s + 5.0)
    assert price == pytest.approx(2.0 * share / known.prefill_s.value, rel=1e-3)
    assert costs.pinned(known, prefill, 5_000, 0.0, limit_s) == 0
    assert costs.pinned(known, prefill, 5_000, short_s, short_s) == 0  # it has its turn as soon as it is prefilled
    prefill.cache_tokens = 0  # the engine has said nonsense
    assert costs.pinned(known, prefill, 5_000, 0.0, limit_s + 1.0) == pytest.approx(1 / known.prefill_s.value, rel=1e-3)


def test_a_prefill_that_stalls_decodes_costs_more_where_memory_is_full() -> None:
    """They hold theirs for as much longer, however far they are from their own objective."""
    router = router_of(decodes=1, prefills=1)
    known, worker = router.knowledge, router.decode.fleet.named["d0"]
    for n in range(4):
        router.choose(request(100, n * 100), 0.0).first_token(0.0, seen=False)
    for _ in range(1_000):
        known.fullness.observe(0.0)
    before = costs.taken(known, worker, 1.0, 0.0)
    assert before > 0
    for _ in range(1_000):
        known.fullness.observe(1.0)
    stay_s = known.output_tokens.value * worker.step.value
    assert costs.taken(known, worker, 1.0, 0.0) - before == pytest.approx(4 / stay_s, rel=1e-3)
    given_up_s = costs.GIVEN_UP * known.slo.ttft_s + 1
    assert costs.taken(known, worker, 1.0, given_up_s) == pytest.approx(before)  # who waits so long is late in any case
    for _ in range(10_000):
        worker.step.observe(0.0)  # answers that come all at once
    assert costs.taken(known, worker, 1.0, 0.0) < 1e6


def test_memory_is_as_full_as_where_requests_are_sent() -> None:
    """On all alike, and long before it is short; soon learnt, either way."""
    router = router_of(decodes=2, blocks=100_000)
    known = router.knowledge
    for usage, expected in ((0.45, 0.5**4), (0.95, 1.0), (0.0, 0.0)):
        router.scraped("decode", "d0", 0, 0, usage, 0.0)
        for _ in range(100):
            router.choose(Request(100), 0.0, at="d0").end(0.0)
        assert known.fullness.value == pytest.approx(expected, abs=0.01)
    router.scraped("decode", "d1", 0, 0, 1.0, 0.0)  # to which none is sent
    router.choose(Request(100), 0.0, at="d0").end(0.0)
    assert known.fullness.value < 0.01


def test_another_routers_prompts_on_a_prefill_worker_are_no_decodes() -> None:
    router = router_of(decodes=1, prefills=1)
    prefill = router.prefill.fleet.named["p0"]
    router.scraped("prefill", "p0", 8, 0, 0.5, 0.0)
    assert prefill.decodes == 8
    assert costs.taken(router.knowledge, prefill, 1.0, 0.0) == 0


def test_nobody_waits_for_others_where_nothing_is_scarce() -> None:
    router = router_of(decodes=6, blocks=1_000_000)
    given_up = router.choose(Request(400_000), 0.0).choice.decode.worker
    assert router.choose(Request(60_000), 0.0).choice.decode.worker is not given_up


def test_who_cannot_be_in_time_waits_where_memory_is_given_up() -> None:
    """Of two whose memory is short, the one that is nearly in time is kept for those to come."""
    router = router_of(decodes=2)
    known, nearly, given_up = router.knowledge, *(router.decode.fleet.named[name] for name in ("d0", "d1"))
    router.scraped("decode", nearly.name, 0, 0, 1.0, 0.0)
    for n in range(20):
        router.choose(request(5_000, n * 5_000), 0.0, at=given_up.name).first_token(0.0, seen=False)
    waits_s = [costs.memory_s(known, worker, 5_000) for worker in (nearly, given_up)]
    assert known.slo.ttft_s < waits_s[0] < costs.GIVEN_UP * known.slo.ttft_s < waits_s[1]
    for scarce, worker in ((0.0, nearly), (1.0, given_up)):
        for _ in range(2_000):
            known.memory_pressure.observe(scarce)
        flight = router.choose(Request(5_000), 0.0)
        assert flight.choice.decode.worker is worker
        flight.end(0.0)


def test_a_full_prefill_worker_is_not_taken_for_a_free_one() -> None:
    """Nor for a late one: what it holds goes as soon as decode takes it."""
    router = router_of(decider="predicted_cost", decodes=1, prefills=2)
    for _ in range(200):
        router.knowledge.memory_pressure.observe(1.0)
    router.scraped("prefill", "p0", 0, 0, 1.0, 0.0)
    busy = router.choose(request(9_000), 0.0, at="d0", settled=Verdict(False, "rule"))
    busy.first_token(0.0, seen=False)
    router.decode.fleet.named["d0"].clear_s = 5.0
    flights = [router.choose(request(9_000, n * 9_000), 0.0, explain=True) for n in range(1, 3)]
    assert {flight.choice.prefill.worker.name for flight in flights if flight.choice.prefill} == {"p0", "p1"}
    scores = [flight.explanation.prefill.values() for flight in flights if flight.explanation]
    assert all(isinstance(one, Candidate) and one.score < 2 for each in scores for one in each)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_filtered_worker_is_picked(policy: str) -> None:
    router = router_of(policy, decodes=6)
    for name, why in (("d0", "unhealthy"), ("d1", "draining"), ("d2", "breaker"), ("d3", "fingerprint")):
        router.keep_out("decode", name, why)
    router.keep_out("decode", "d1", "unhealthy")
    router.keep_out("decode", "d1", "unhealthy", out=False)
    picked = Counter(router.choose(request(64, n), 0.0).choice.decode.worker.name for n in range(40))
    assert set(picked) <= {"d4", "d5"}
    assert router.choose(request(64), 0.0, avoid=("d4",)).choice.decode.worker.name == "d5"
    router.leave("decode", "d4")
    router.keep_out("decode", "d5", "draining")
    with pytest.raises(NoWorkerAvailable):
        router.choose(request(64), 0.0)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_equal_workers_share_equally(policy: str) -> None:
    router = router_of(policy, decodes=8)
    picked: Counter[str] = Counter()
    for n in range(80):
        flight = router.choose(Request(64, chain(range(n * 64, n * 64 + 64), BLOCK)), float(n))
        picked[flight.choice.decode.worker.name] += 1
        flight.first_token(n + 0.1)
        flight.end(n + 0.2, 10)
    if policy in ("power_of_two", "bounded_prefix_hash", "llm_d_blend"):  # drawn by lot, or by the prompt
        assert max(picked.values()) <= 25
    else:
        assert max(picked.values()) - min(picked.get(f"d{n}", 0) for n in range(8)) <= 2  # what is as good is rounded


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("decider", sorted(DECIDERS))
def test_what_is_booked_is_returned(policy: str, decider: str) -> None:
    router = router_of(policy, decider, decodes=3, prefills=2)
    draw = random.Random(f"{policy} {decider}")
    flights = []
    for n in range(60):
        flights.append(router.choose(request(draw.choice([50, 3_000, 20_000]), draw.randrange(3)), n * 0.1))
        for flight in draw.sample(flights, min(3, len(flights))):
            draw.choice(
                [
                    lambda flight=flight, n=n: flight.prefilled(n * 0.1),
                    lambda flight=flight, n=n: flight.first_token(n * 0.1),
                    lambda flight=flight, n=n: flight.fall_back(n * 0.1),
                    lambda flight=flight, n=n: flight.end(n * 0.1, draw.randrange(50)),
                ]
            )()
        if n == 30:
            router.leave("decode", "d1")
            router.join("decode", "d9", 2_000)
    workers = {leg.worker for f in flights for leg in (f.choice.decode, f.choice.prefill) if leg}
    for flight in flights:
        flight.end(100.0)
        flight.end(101.0)
    for worker in workers:
        held = (worker.prefill_tokens, worker.prefill_s, worker.waiting, worker.running, worker.kv_tokens)
        assert held == (0, 0.0, 0, 0, 0), worker.name


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 63)), max_size=4), st.integers(1, 63))
def test_a_field_has_each_candidate_once(classes: list[tuple[int, int]], mask: int) -> None:
    router = router_of(decodes=6)
    rest, disjoint = 63, []
    for cached, holders in sorted(classes, reverse=True):
        disjoint.append((cached * BLOCK, holders & rest))
        rest &= ~holders
    field = Field(router.decode.fleet, mask, disjoint)
    each = dict(field.each())
    assert {worker.index for worker in each} == {n for n in range(6) if mask >> n & 1}
    for worker, cached in each.items():
        assert cached == next((held for held, holders in disjoint if holders & worker.bit), 0)
        assert field.cached_tokens(worker) == cached


def test_wrong_constants_are_all_told() -> None:
    with pytest.raises(RecipeError, match="2 problems"):
        Calibration(0, 0.02, 1, 1, attention_s=-1)
    with pytest.raises(RecipeError, match=r"itl_s: 0"):
        SLO(1, 0)
