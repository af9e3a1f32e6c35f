"""Rules compared seed by seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperpd.errors import RecipeError
from hyperpd.plan.baselines import DECIDERS, POLICIES
from hyperpd.plan.replay import Ahead, Rules, Slice, play, replay, summarize
from hyperpd.plan.statistics import difference, estimate
from hyperpd.plan.trace import read
from tests.sdk.plan.fleets import OBJECTIVES, fleet, router

TRACE = read(Path(__file__).parents[2] / "data" / "traces" / "mooncake_conversation.jsonl.gz", 131_072)
PART = Slice(length_s=60.0, warm_up_s=30.0, speed=0.5)


def test_every_rule_that_there_is_serves() -> None:
    served = fleet("2p2d")
    contenders = [Rules(policy=policy) for policy in POLICIES] + [Rules(decider=decider) for decider in DECIDERS]
    part = Slice(length_s=15.0, warm_up_s=0.0, speed=0.5, start_s=0.0)
    played = list(replay(served, TRACE, contenders, OBJECTIVES, part, 1))
    assert [one.rules for one in played] == contenders
    assert len({one.measures.requests for one in played}) == 1
    by_decider = {one.rules.decider: one.measures.remote_share for one in played}
    assert (by_decider["always"], by_decider["never"]) == (1.0, 0.0)


def test_a_seed_is_the_same_traffic_for_every_rule() -> None:
    served = fleet("4xtp4")
    contenders = [Rules(), Rules(policy="round_robin")]
    played = list(replay(served, TRACE, contenders, OBJECTIVES, PART, 3))
    assert [(one.seed, one.rules) for one in played] == [(seed, rules) for seed in range(3) for rules in contenders]
    counts = [one.measures.requests for one in played]
    assert counts[0::2] == counts[1::2]
    assert len(set(counts[0::2])) > 1  # the seed draws where the slice begins
    again = play(served, TRACE, contenders[1], OBJECTIVES, PART, 2)
    assert again.measures == played[-1].measures


def test_who_is_ahead_is_told_seed_by_seed() -> None:
    served = fleet("4xtp4")
    contenders = [Rules(), Rules(policy="round_robin"), Rules(policy="least_tokens")]
    played = list(replay(served, TRACE, contenders, OBJECTIVES, PART, 3))
    summaries = summarize(played)
    goodput = {rules: [one.measures.goodput_per_s for one in played if one.rules == rules] for rules in contenders}
    ranked = sorted((estimate(found).mean for found in goodput.values()), reverse=True)
    assert [one.goodput_per_s.mean for one in summaries] == ranked
    first, second, third = summaries
    for one, best in ((first, second), (second, first), (third, first)):
        assert one.ahead == Ahead(best.rules, difference(goodput[one.rules], goodput[best.rules]))
    assert first.ahead
    assert first.ahead.by.mean >= 0
    ttft_ms = [one.measures.ttft_ms["p95"] for one in played if one.rules == third.rules]
    assert third.ttft_ms["p95"] == estimate(ttft_ms)
    assert [one.ahead for one in summarize([one for one in played if one.rules == Rules()])] == [None]


def test_unknown_rules_are_told_together() -> None:
    with pytest.raises(
        RecipeError,
        match=r"(?s)no policy 'least_token'; did you mean least_tokens.*no decider 'sometimes'; there are always",
    ):
        router(fleet("2p2d"), "least_token", "sometimes")


def test_intervals_are_students() -> None:
    """Of 1 to 5: mean 3, and 2.776 x sqrt(2.5 / 5)."""
    found = estimate([1, 2, 3, 4, 5])
    assert (found.mean, found.within) == (3, pytest.approx(1.963, abs=1e-3))
    assert (found.low, found.high) == (pytest.approx(1.037, abs=1e-3), pytest.approx(4.963, abs=1e-3))
    assert estimate([7]).within is None
    assert estimate(list(range(40))).within == pytest.approx(1.96 * 11.6905 / 40**0.5, rel=1e-4)


def test_what_both_met_alike_is_no_noise() -> None:
    assert difference([1, 12, 103], [0, 11, 102]) == estimate([1, 1, 1])
