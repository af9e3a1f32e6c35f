"""What a gateway keeps of its decisions: all of the last ones, nothing of prompts, and no more than its bound."""

from __future__ import annotations

import json
from math import inf

import pytest

from hyperpd.errors import Rejected
from hyperpd.routing.choice import Candidate, Explanation, Verdict
from hyperpd_runtime.gateway import explained
from hyperpd_runtime.gateway.explained import Explained
from tests.sdk.routing.test_policies import request, router_of


def test_a_decision_says_who_was_there_and_what_each_way_costs() -> None:
    router, kept = router_of(decider="predicted_cost", decodes=3, prefills=2), Explained(2.0)
    router.keep_out("decode", "d1", "draining")
    router.choose(request(9_000), 0.0, avoid=("d2",)).end(0.1)
    flight = router.choose(request(9_000), 0.2, avoid=("d2",), explain=True)
    kept.put("r", flight)
    kept.serve("r", "pd")
    said = json.loads(json.dumps(kept.explain("r"), allow_nan=False))
    (decision,) = said.pop("decisions")
    assert said == {"request_id": "r", "mode": "pd", "ttft_objective_ms": 2000.0, "decisions_left_out": 0}
    assert [(one["worker"], one["why_not"]) for one in decision["decode_candidates"]] == [
        ("d0", None),
        ("d1", "draining"),
        ("d2", "avoided"),
    ]
    leg = flight.choice.decode
    assert decision["decode_candidates"][0]["cached_tokens"] == leg.cached_tokens > 0
    assert decision["decode_candidates"][0]["score"] > 0
    assert decision["decode"] == {
        "worker": "d0",
        "cached_tokens": leg.cached_tokens,
        "uncached_tokens": leg.uncached_tokens,
        "prefill_ms": leg.prefill_s * 1000,
    }
    assert (decision["prompt_tokens"], decision["reason"], decision["prefill"]) == (9_000, "cost_local", None)
    assert decision["remote_cost"] > decision["local_cost"] > 0
    assert {one["worker"] for one in decision["prefill_candidates"]} == {"p0", "p1"}


def test_the_best_candidate_is_first_and_no_number_is_infinite() -> None:
    choice = router_of().choose(request(100), 0.0).choice
    scores = {"a": Candidate(inf, 0), "b": Candidate(2.0, 0), "c": "draining", "d": Candidate(1.0, 16)}
    flight = router_of().choose(request(100), 0.0, explain=True)
    verdict = Verdict(False, "cost_local", 1.0, inf)
    flight.explanation = Explanation(scores, {}, type(choice)(choice.decode, None, verdict))
    kept = Explained(1.0)
    kept.put("r", flight)
    (decision,) = json.loads(json.dumps(kept.explain("r"), allow_nan=False))["decisions"]
    assert [one["worker"] for one in decision["decode_candidates"]] == ["d", "b", "a", "c"]
    assert (decision["local_cost"], decision["remote_cost"]) == (1.0, None)


def test_the_oldest_request_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explained, "REQUESTS", 3)
    router, kept = router_of(), Explained(2.0)
    for n in range(5):
        kept.put(f"r{n}", router.choose(request(100), 0.0, explain=True))
    for known in ("r2", "r3", "r4"):
        assert kept.explain(known)["request_id"] == known
    with pytest.raises(Rejected, match=r"r1: no decision .* last 3 requests of this gateway process") as refused:
        kept.explain("r1")
    assert (refused.value.status, refused.value.code) == (404, "request_unknown")


def test_candidates_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a fleet of thousands would fill the memory long before the requests are many."""
    monkeypatch.setattr(explained, "_CANDIDATES", 10)
    router, kept = router_of(decodes=4), Explained(2.0)
    for n in range(4):
        kept.put(f"r{n}", router.choose(request(100), 0.0, explain=True))
    assert list(kept._requests) == ["r2", "r3"]
    large = router_of(decodes=50)
    kept.put("large", large.choose(request(100), 0.0, explain=True))
    assert list(kept._requests) == ["large"]


def test_retries_are_decisions_of_their_request() -> None:
    router, kept = router_of(), Explained(2.0)
    for avoid in ((), ("d0",)):
        kept.put("r", router.choose(request(100), 0.0, avoid=avoid, explain=True))
    assert [one["decode"]["worker"] for one in kept.explain("r")["decisions"]] == ["d0", "d1"]
    for _ in range(20):
        kept.put("r", router.choose(request(100), 0.0, explain=True))
    said = kept.explain("r")
    assert (len(said["decisions"]), said["decisions_left_out"], said["mode"]) == (8, 14, None)


def test_a_decision_without_an_explanation_leaves_nothing() -> None:
    kept = Explained(2.0)
    kept.put("r", router_of().choose(request(100), 0.0))
    kept.serve("r", "pd")
    with pytest.raises(Rejected, match="x-hyperpd-explain: 1"):
        kept.explain("r")
