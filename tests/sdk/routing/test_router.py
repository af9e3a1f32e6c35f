"""One decision after the other: reasons, pairs, sessions, what is learnt and what engines say."""

from __future__ import annotations

import pytest

from hyperpd.errors import NoWorkerAvailable
from hyperpd.plan.baselines import DECIDERS
from hyperpd.routing import costs
from hyperpd.routing.blocks import chain
from hyperpd.routing.choice import Reason, Verdict
from hyperpd.routing.request import Request
from hyperpd.routing.router import Role, Router
from tests.sdk.routing.test_policies import BLOCK, request, router_of


def reason(router: Router, one: Request, now_s: float = 0.0) -> Reason:
    """Of a decision."""
    return router.choose(one, now_s).choice.reason


@pytest.mark.parametrize(
    ("decider", "prefills", "tokens", "expected"),
    [
        ("always", 0, 9_000, "aggregated"),
        ("always", 1, 9_000, "remote"),
        ("never", 1, 9_000, "rule"),
        ("uncached_tokens", 1, 2_047, "below_threshold"),
        ("uncached_tokens", 1, 2_048, "remote"),
        ("llm_d_decider", 1, 16, "below_threshold"),
        ("llm_d_decider", 1, 17, "remote"),
        ("raw_threshold", 1, 4_095, "below_threshold"),
        ("raw_threshold", 1, 4_096, "remote"),
        ("isl_bounding", 1, 100, "remote"),  # short, but nothing of it is cached
        ("vllm_bypass", 1, 255, "below_threshold"),
        ("vllm_bypass", 1, 256, "remote"),
        ("prefill_load", 1, 9_000, "remote"),
        ("predicted_cost", 1, 9_000, "cost_local"),  # all idle: moving the KV is all it would add
    ],
)
def test_reasons(decider: str, prefills: int, tokens: int, expected: Reason) -> None:
    assert reason(router_of(decider=decider, prefills=prefills), request(tokens)) == expected


@pytest.mark.parametrize("decider", sorted(DECIDERS))
def test_without_a_way_nothing_is_remote(decider: str) -> None:
    router = router_of(decider=decider, decodes=1, prefills=2)
    router.doubt("p0", "d0")
    if decider != "never":
        assert router.choose(request(50_000), 0.0, explain=True).explanation
    flights = [router.choose(request(9_000, n), 0.0).choice.prefill for n in range(6)]
    assert {leg.worker.name for leg in flights if leg} <= {"p1"}
    router.doubt("p1", "d0")
    assert reason(router, request(50_000)) == "pair_open"
    router.prove("p1", "d0")
    router.keep_out("prefill", "p0", "unhealthy")
    router.keep_out("prefill", "p1", "breaker")
    assert reason(router, request(50_000)) == "no_prefill_worker"


def test_a_new_pair_is_closed() -> None:
    router = router_of(decider="always", decodes=1)
    router.join("prefill", "p9", 2_000)
    assert reason(router, request(9_000)) == "pair_open"


def test_isl_bounding_keeps_what_is_mostly_cached() -> None:
    router = router_of(decider="isl_bounding", decodes=1, prefills=1)
    router.choose(request(4_000), 0.0).prefilled(0.5)
    assert reason(router, request(4_100)) == "below_threshold"


def test_prefill_load_keeps_what_would_wait_too_long() -> None:
    router = router_of(decider="prefill_load", decodes=1, prefills=1)
    assert [reason(router, request(9_000, n * 9_000)) for n in range(4)] == ["remote", "remote", "remote", "cost_local"]


def test_a_busy_decode_worker_sends_prefill_away_and_a_slow_way_keeps_it() -> None:
    router = router_of(decider="predicted_cost", decodes=1, prefills=1)
    for n in range(16):
        router.choose(request(32, n * 100), n * 0.01).first_token(n * 0.01 + 0.005)
    assert reason(router, request(9_000), 0.2) == "remote"
    router.transferred("p0", "d0", 1e9, 20.0, 0.3)
    assert reason(router, request(9_000, 50_000), 0.4) == "cost_local"
    assert reason(router, request(9_000, 90_000), 100.0) == "remote"  # that was long ago


def test_a_way_is_not_judged_by_what_waits_at_its_end() -> None:
    router = router_of(decider="always", decodes=1, prefills=1)
    prefill, decode = router.prefill.fleet.named["p0"], router.decode.fleet.named["d0"]
    before = router.pairs.bytes_per_s(prefill, decode, 0.0)
    one, other = router.choose(request(1_000), 0.0), router.choose(request(1_000, 2_000), 0.0)
    one.prefilled(1.0)
    one.first_token(9.0)
    assert router.pairs.bytes_per_s(prefill, decode, 9.0) == before
    other.prefilled(9.0)
    other.first_token(10.0)
    assert router.pairs.bytes_per_s(prefill, decode, 10.0) < before


def test_what_is_overdue_is_expected_to_take_as_long_again() -> None:
    router = router_of(decodes=1)
    worker = router.decode.fleet.named["d0"]
    flight = router.choose(request(10_000), 0.0)
    due_s = worker.clear_s
    assert worker.backlog_s(due_s) == 0
    assert worker.backlog_s(due_s + 3) == pytest.approx(3)
    flight.first_token(due_s + 3)
    assert worker.backlog_s(due_s + 4) == 0


def test_a_worker_is_as_fast_as_it_was_seen() -> None:
    router = router_of(decodes=1)
    worker = router.decode.fleet.named["d0"]
    now_s = 0.0
    for n in range(60):
        flight = router.choose(request(5_000, n * 5_000), now_s)
        now_s += 2 * flight.choice.decode.prefill_s
        flight.first_token(now_s)
        flight.end(now_s + 1.0, 101)
    assert worker.pace.value == pytest.approx(0.5, rel=0.05)
    assert worker.step.value == pytest.approx(0.01, rel=0.3)
    assert router.knowledge.output_tokens.value < 256
    assert worker.backlog_s(now_s) == 0
    router.choose(request(5_000, 999_000), now_s)
    assert worker.backlog_s(now_s) == pytest.approx(2 * flight.choice.decode.prefill_s, rel=0.05)


def test_one_prompt_token_is_computed_always() -> None:
    router = router_of(decodes=1)
    router.choose(request(160), 0.0)
    leg = router.choose(request(160), 0.0).choice.decode
    assert (leg.cached_tokens, leg.uncached_tokens) == (144, 16)


def test_decode_holds_a_prompt_no_sooner_than_its_remote_prefill_has_answered() -> None:
    """A prefill may wait for minutes; who reckons with what is not there yet computes it in others' way."""
    router = router_of(decider="always", decodes=1, prefills=1)
    asked = request(8 * BLOCK)
    flight = router.choose(asked, 0.0)
    choice = router.choose(asked, 0.1).choice
    assert choice.prefill
    assert (choice.prefill.cached_tokens, choice.decode.cached_tokens) == (7 * BLOCK, 0)
    flight.prefilled(1.0)
    assert router.choose(asked, 1.1).choice.decode.cached_tokens == 7 * BLOCK


def test_decode_holds_a_prompt_that_falls_back_to_it() -> None:
    router = router_of(decider="always", decodes=1, prefills=1)
    asked = request(8 * BLOCK)
    router.choose(asked, 0.0).fall_back(1.0)
    assert router.choose(asked, 1.1).choice.decode.cached_tokens == 7 * BLOCK


def test_a_conversation_goes_back_to_who_holds_its_answer() -> None:
    router = router_of(decodes=3)
    turn = Request(8_000, chain(range(8_000), BLOCK), "talk")
    flight = router.choose(turn, 0.0)
    flight.first_token(1.0)
    flight.end(2.0, 2_000)
    # The next turn holds the answer, which was in no prompt sent so far.
    second = Request(10_100, chain(range(10_100), BLOCK), "talk")
    leg = router.choose(second, 3.0).choice.decode
    assert leg.worker is flight.choice.decode.worker
    assert leg.cached_tokens == (8_000 + 1_999) // BLOCK * BLOCK


def test_what_was_evicted_since_is_not_taken_for_held() -> None:
    router = router_of(decodes=1)
    flight = router.choose(Request(8_000, chain(range(8_000), BLOCK), "talk"), 0.0)
    flight.first_token(1.0)
    flight.end(2.0, 2_000)
    router.choose(request(31_000, 50_000), 2.5)  # of the worker's 32,000 tokens
    second = Request(10_100, chain(range(10_100), BLOCK), "talk")
    assert router.choose(second, 3.0).choice.decode.cached_tokens < 8_000


def test_a_prefill_that_failed_is_no_longer_booked() -> None:
    router = router_of(decider="always", decodes=1, prefills=1)
    flight = router.choose(request(1_000), 0.0)
    flight.fall_back(0.1)
    prefill, decode = router.prefill.fleet.named["p0"], router.decode.fleet.named["d0"]
    assert (prefill.prefill_tokens, prefill.waiting, prefill.backlog_s(0.1)) == (0, 0, 0.0)
    assert (decode.prefill_tokens, decode.waiting) == (1_000, 1)


@pytest.mark.parametrize(
    ("session", "start", "now_s"),
    [("other", 0, 3.0), ("talk", 5, 3.0), ("talk", 0, 400.0)],
    ids=["another conversation", "another beginning", "long ago"],
)
def test_an_answer_is_not_guessed(session: str, start: int, now_s: float) -> None:
    router = router_of(decodes=1)
    flight = router.choose(Request(8_000, chain(range(8_000), BLOCK), "talk"), 0.0)
    flight.first_token(1.0)
    flight.end(2.0, 2_000)
    second = Request(10_100, chain(range(start, start + 10_100), BLOCK), session)
    assert router.choose(second, now_s).choice.decode.cached_tokens <= 8_000


def test_what_others_sent_counts_once() -> None:
    router = router_of(decodes=1)
    worker = router.decode.fleet.named["d0"]
    router.choose(request(1_000), 0.0)
    router.choose(request(1_000), 0.0).first_token(0.1)
    router.scraped("decode", "d0", running=2, waiting=0, kv_usage=0.5, now_s=0.2)  # both are ours: one prefills still
    assert (worker.decodes, worker.in_flight) == (1, 2)
    own_s = worker.backlog_s(0.3)
    router.scraped("decode", "d0", running=5, waiting=2, kv_usage=0.5, now_s=0.3)
    assert (worker.foreign_running, worker.foreign_waiting, worker.in_flight) == (4, 1, 7)
    usual_s = router.knowledge.prefill_s.value / worker.pace.value
    assert worker.backlog_s(0.3) == pytest.approx(own_s + usual_s)
    assert worker.backlog_s(60.0) == 60.0 - worker.clear_s  # others' are thought to be done; its own is overdue
    router.scraped("decode", "d0", running=1, waiting=0, kv_usage=0.1, now_s=0.4)
    assert worker.in_flight == 2


def test_an_explanation_has_every_worker() -> None:
    router = router_of(decider="predicted_cost", decodes=3, prefills=3)
    router.keep_out("decode", "d1", "draining")
    for n in range(3):
        router.doubt("p2", f"d{n}")
    explanation = router.choose(request(9_000), 0.0, avoid=("d2",), explain=True).explanation
    assert explanation
    assert {name: said for name, said in explanation.decode.items() if isinstance(said, str)} == {
        "d1": "draining",
        "d2": "avoided",
    }
    assert {name: said for name, said in explanation.prefill.items() if isinstance(said, str)} == {"p2": "no open pair"}
    assert explanation.choice.decode.worker.name == "d0"


def test_a_place_that_is_free_again_is_taken_by_the_next() -> None:
    router = router_of(decodes=2)
    old = router.choose(request(640), 0.0, avoid=("d1",))
    router.leave("decode", "d0")
    fresh = router.join("decode", "d7", 2_000)
    assert fresh.index == 0
    old.first_token(1.0)
    old.end(2.0, 10)
    assert (fresh.in_flight, fresh.prefill_tokens) == (0, 0)
    leg = router.choose(request(640), 3.0, avoid=("d1",)).choice.decode
    assert (leg.worker, leg.cached_tokens) == (fresh, 0)
    assert router.decode.lacked_tokens(fresh, request(640), 4.0) < 640
    assert router.decode.lacked_tokens(old.choice.decode.worker, request(640), 4.0) == 640


def test_a_pair_without_bandwidth_is_never_worth_it() -> None:
    router = router_of(decodes=1, prefills=1)
    decode, prefill = router.decode.fleet.named["d0"], router.prefill.fleet.named["p0"]
    assert costs.remote(router.knowledge, decode, prefill, 100, 0.01, 100, 0.0, 0.0) == float("inf")


def test_waiting_for_memory_is_not_taken_for_slowness() -> None:
    router = router_of(decodes=1)
    worker = router.decode.fleet.named["d0"]
    for n in range(4):  # of 32,000 tokens
        router.choose(request(9_000, n * 9_000), 0.0)
    assert costs.memory_s(router.knowledge, worker, 9_000) > 0
    late = router.choose(request(9_000, 90_000), 0.0)
    late.first_token(60.0)
    assert worker.pace.value == 1


def test_waiting_for_memory_that_only_the_engine_knows_of_is_not_taken_for_slowness() -> None:
    router = router_of(decodes=1)
    worker = router.decode.fleet.named["d0"]
    router.scraped("decode", "d0", 0, 0, 0.95, 0.0)
    router.choose(request(1_000), 0.0).first_token(60.0)
    assert worker.pace.value == 1


def test_what_requests_share_is_not_held_twice() -> None:
    router = router_of(decodes=1)
    worker = router.decode.fleet.named["d0"]
    for n in range(5):
        router.choose(request(16_000), n).first_token(n)
    assert worker.held_tokens < 16_000 + 5 * 300  # of 32,000


def test_answers_longer_than_usual_hold_memory_too() -> None:
    """What was booked for them is outgrown; the engine's own figure tells."""
    router = router_of(decodes=1)
    worker = router.decode.fleet.named["d0"]
    flight = router.choose(request(1_000), 0.0)
    flight.first_token(1.0)
    assert costs.memory_s(router.knowledge, worker, 1_000) == 0
    router.scraped("decode", "d0", 1, 0, 0.95, 2.0)
    assert worker.held_tokens == round(0.95 * worker.cache_tokens)
    assert costs.memory_s(router.knowledge, worker, 1_000) > 0
    router.scraped("decode", "d0", 1, 0, 0.01, 3.0)
    assert worker.held_tokens == worker.kv_tokens == 1_256


def test_what_is_scarce_is_learnt_from_what_requests_wait_for() -> None:
    router = router_of(decodes=1, blocks=1_000_000)
    known = router.knowledge
    for n in range(50):
        router.choose(request(9_000, n * 9_000), 0.0)
    assert 0.5 < known.prefill_pressure.value < 1
    assert known.memory_pressure.value == 0
    assert known.fullness.value < 0.01  # of a million blocks a tenth is held at last
    assert known.held_tokens.value > 5_000  # of 9,256 each, from 2,000 on
    router.scraped("decode", "d0", 50, 0, 1.0, 0.0)
    for _ in range(1_000):
        known.output_tokens.observe(10_000)
    for n in range(50, 100):
        router.choose(request(9_000, n * 9_000), 0.0)
    assert 0.2 < known.memory_pressure.value < 1
    assert known.fullness.value > 0.9


def test_memory_on_decode_is_taken_when_prefill_has_answered() -> None:
    router = router_of(decider="always", decodes=1, prefills=1)
    worker = router.decode.fleet.named["d0"]
    flight = router.choose(request(1_000), 0.0)
    assert worker.kv_tokens == 0
    flight.prefilled(1.0)
    assert worker.kv_tokens == 1_256


def test_what_another_remote_prefill_brought_is_neither_held_nor_moved_twice() -> None:
    """Two that begin alike, both on their way before either has come."""
    router = router_of(decider="always", decodes=1, prefills=1)
    worker, prefill = router.decode.fleet.named["d0"], router.prefill.fleet.named["p0"]
    first, second = (router.choose(request(n * BLOCK), 0.0) for n in (100, 101))
    first.prefilled(1.0)
    first.first_token(1.1)
    assert worker.kv_tokens == 100 * BLOCK + 256
    before = router.pairs.bytes_per_s(prefill, worker, 1.1)
    second.prefilled(2.0)
    assert worker.kv_tokens == 101 * BLOCK + 2 * 256
    second.first_token(2.5)
    assert router.pairs.bytes_per_s(prefill, worker, 2.5) < before  # next to nothing moved, in half a second
    first.end(3.0, 1)
    second.end(3.0, 1)
    assert worker.kv_tokens == 0


@pytest.mark.parametrize("remote", [False, True])
def test_what_is_settled_is_not_decided(remote: bool) -> None:
    router = router_of(decider="never" if remote else "always", prefills=1)
    flight = router.choose(Request(4096), 0.0, settled=Verdict(remote, "forced"))
    assert (bool(flight.choice.prefill), flight.choice.reason) == (remote, "forced")


def test_nothing_settled_opens_a_closed_pair() -> None:
    router = router_of(prefills=1)
    router.doubt("p0", "d0")
    flight = router.choose(Request(4096), 0.0, at="d0", settled=Verdict(True, "forced"))
    assert (flight.choice.prefill, flight.choice.reason) == (None, "pair_open")


def test_a_settled_decode_worker_is_the_one() -> None:
    router = router_of(decodes=3)
    assert {router.choose(Request(4096), 0.0, at="d1").choice.decode.worker.name for _ in range(3)} == {"d1"}
    for role_out in ("d1", "nobody"):
        router.keep_out("decode", "d1", "unhealthy")
        with pytest.raises(NoWorkerAvailable):
            router.choose(Request(4096), 0.0, at=role_out)


def test_without_prefill_workers_a_fleet_that_had_some_is_not_aggregated() -> None:
    router = router_of(prefills=1)
    router.leave("prefill", "p0")
    assert router.choose(Request(4096), 0.0).choice.reason == "no_prefill_worker"


def test_an_emptied_cache_holds_nothing_and_a_resized_one_as_much_as_it_can() -> None:
    router = router_of()
    asked = Request(4 * BLOCK + 1, range(1, 5))

    def cached_tokens() -> int:
        return router.choose(asked, 0.0, at="d0").choice.decode.cached_tokens

    cached_tokens()
    router.resize("decode", "d0", 2)
    assert (cached_tokens(), router.decode.fleet.named["d0"].cache_tokens) == (2 * BLOCK, 2 * BLOCK)
    router.empty("decode", "d0")
    assert cached_tokens() == 0


def test_a_first_token_that_was_not_seen_teaches_nothing() -> None:
    router = router_of(prefills=0)
    worker = router.decode.fleet.named["d0"]
    pace, step = worker.pace.value, worker.step.value
    flight = router.choose(Request(4096), 0.0)
    flight.first_token(50.0, seen=False)
    assert (worker.waiting, worker.running, worker.prefill_tokens) == (0, 1, 0)
    flight.end(60.0, 100)
    assert (worker.pace.value, worker.step.value) == (pace, step)
    assert router.knowledge.output_tokens.value != router.knowledge.calibration.mean_output_tokens


@pytest.mark.parametrize("decider", ["always", "never"])
def test_a_first_token_that_was_guessed_has_not_come_where_decode_has_to_begin_anew(decider: str) -> None:
    router = router_of(decider=decider, decodes=1, prefills=1)
    worker = router.decode.fleet.named["d0"]
    flight = router.choose(request(1_000), 0.0)
    flight.first_token(1.0, seen=False)
    assert (worker.waiting, worker.running, worker.prefill_tokens) == (0, 1, 0)
    flight.fall_back(2.0)
    assert (worker.waiting, worker.running, worker.prefill_tokens, worker.kv_tokens) == (1, 0, 1_000, 1_256)
    flight.first_token(3.0)
    flight.fall_back(4.0)  # it was seen
    assert (worker.waiting, worker.running, worker.prefill_tokens) == (0, 1, 0)
    flight.end(5.0, 10)
    assert (worker.waiting, worker.running, worker.kv_tokens, worker.prefill_s) == (0, 0, 0, 0.0)


@pytest.mark.parametrize(("decider", "side"), [("always", "prefill"), ("never", "decode")])
def test_waiting_to_be_sent_is_not_taken_for_slowness(decider: str, side: str) -> None:
    router = router_of(decider=decider, decodes=1, prefills=1)
    (worker,) = getattr(router, side).fleet.named.values()
    flight = router.choose(request(1_000), 0.0)
    leg = flight.choice.prefill or flight.choice.decode
    flight.started(50.0)
    flight.prefilled(50.0 + leg.prefill_s)
    flight.first_token(50.0 + leg.prefill_s)
    flight.started(60.0)  # of no meaning any more
    assert worker.pace.value == pytest.approx(1.0)
    flight.end(70.0)


@pytest.mark.parametrize(("role", "name"), [("prefill", "p0"), ("decode", "d0")])
def test_of_a_pair_that_is_no_more_nothing_is_kept(role: Role, name: str) -> None:
    router = router_of(decider="always", decodes=1, prefills=1)
    flight = router.choose(request(1_000), 0.0)
    flight.prefilled(1.0)
    router.leave(role, name)
    router.join(role, name, 2_000)
    flight.first_token(9.0)
    flight.end(10.0, 5)
    assert router.pairs._speeds == {}


def prefills(router: Router) -> set[str]:
    """Who prefills the next two."""
    legs = [router.choose(Request(4096), 0.0).choice.prefill for _ in range(2)]
    return {leg.worker.name for leg in legs if leg}


def test_who_leaves_closes_its_own_pairs_alone() -> None:
    router = router_of(decider="always", decodes=2, prefills=2)
    router.leave("decode", "d0")  # of the same place as p0, among the others
    assert prefills(router) == {"p0", "p1"}
    router.leave("prefill", "p0")
    router.join("prefill", "p2", 100)  # at the place that is free
    assert prefills(router) == {"p1"}
