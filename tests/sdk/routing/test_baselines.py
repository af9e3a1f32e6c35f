"""The published rules do what their files say, each by the case that tells it from its neighbours."""

from __future__ import annotations

import pytest

from hyperpd.routing.router import Router
from tests.sdk.routing.test_policies import request, router_of


def sent(router: Router, name: str, *requests: tuple[int, int]) -> None:
    """Requests of (tokens, first id) to one worker, whatever the policy."""
    others = [other for other in router.decode.fleet.named if other != name]
    for tokens, start in requests:
        router.choose(request(tokens, start), 0.0, avoid=others)


def picked(router: Router, tokens: int, start: int) -> str:
    """Where the next one goes."""
    return router.choose(request(tokens, start), 0.0).choice.decode.worker.name


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("least_tokens", "d1"),  # 2,000 tokens there, 1,600 here
        ("lmetric", "d0"),  # (2,000 + 16) * 2 here, (1,600 + 2,000) * 5 there
        ("cache_aware", "d0"),  # nearly all of it matches
        ("llm_d_affinity", "d0"),
        ("llm_d_blend", "d0"),
        ("aibrix", "d0"),
        ("dynamo_cost", "d0"),
    ],
)
def test_a_match_against_a_shorter_backlog(policy: str, expected: str) -> None:
    router = router_of(policy, decodes=2)
    sent(router, "d0", (2_000, 0))
    sent(router, "d1", (400, 50_000), (400, 60_000), (400, 70_000), (400, 80_000))
    assert picked(router, 2_000, 0) == expected


def test_affinity_is_broken_when_it_costs_more_than_18_s() -> None:
    router = router_of("llm_d_affinity", decodes=2)
    sent(router, "d0", (2_000, 0), *((9_000, 100_000 * n) for n in range(1, 20)))  # 17.3 s at 10,000 tokens/s
    assert picked(router, 9_000, 1_900_000) == "d0"
    sent(router, "d0", (9_000, 3_000_000))
    assert picked(router, 9_000, 3_000_000) == "d1"


def test_cache_aware_takes_the_shortest_queue_when_they_differ_too_much() -> None:
    router = router_of("cache_aware", decodes=2)
    sent(router, "d0", *((160, 0),) * 64)
    assert picked(router, 160, 0) == "d0"
    assert picked(router, 160, 0) == "d1"


def test_aibrix_takes_the_least_loaded_when_they_differ_too_much() -> None:
    router = router_of("aibrix", decodes=2)
    sent(router, "d0", *((160, 0),) * 16)
    assert [picked(router, 160, 0) for _ in range(2)] == ["d0", "d1"]


def test_bounded_hashing_keeps_a_beginning_at_one_worker_until_it_is_too_full() -> None:
    router = router_of("bounded_prefix_hash", decodes=4)
    names = [router.choose(request(8_000), float(n)).choice.decode.worker.name for n in range(20)]
    loads = [worker.in_flight for worker in router.decode.fleet.named.values()]
    assert max(loads) <= 1.25 * 20 / 4 + 1
    router = router_of("bounded_prefix_hash", decodes=4)
    for n in range(20):
        flight = router.choose(request(8_000 + n), float(n))
        assert flight.choice.decode.worker.name == names[0]  # nothing else is there
        flight.end(n + 0.5)


def test_power_of_two_never_takes_the_most_loaded_of_all() -> None:
    router = router_of("power_of_two", decodes=3)
    sent(router, "d1", *((160, 0),) * 200)
    assert "d1" not in {picked(router, 160, 1_000 * n) for n in range(60)}


def test_lmetric_weighs_tokens_by_requests() -> None:
    router = router_of("lmetric", decodes=2)
    sent(router, "d0", (2_000, 0))
    sent(router, "d1", *((100, 1_000 * n) for n in range(10, 18)))
    assert picked(router, 1_000, 90_000) == "d0"  # (2,000 + 1,000) * 2 here, (800 + 1,000) * 9 there


def test_the_blend_prefers_a_whole_match_to_the_shortest_queue() -> None:
    router = router_of("llm_d_blend", decodes=2)
    sent(router, "d0", (2_000, 0), (100, 10_000))
    sent(router, "d1", (100, 20_000))
    assert picked(router, 2_000, 0) == "d0"  # 3 * 0.99 against 2 * 1
    assert picked(router, 4_000, 0) == "d1"  # 3 * 0.5
