"""What a cluster costs, and what is said of prices that are missing, old or paid in advance."""

from __future__ import annotations

from datetime import date as Day
from typing import Any

from hyperpd.cluster.preflight import costs, nodes
from hyperpd.prices import Price
from tests.cluster.files import EKS, plan

TODAY = Day(2026, 11, 25)
P5, G5 = "ml.p5.48xlarge", "ml.g5.8xlarge"
NOTHING: dict[str, Any] = {"overrides": {}, "live": {}, "cached": {}}


def price(usd: float, day: Day = TODAY) -> Price:
    return Price(usd, "HyperPod on demand", "test", day)


def of(prices: dict[str, Any] | None = None, plans: dict[str, Any] | None = None, **change: Any) -> list[costs.Cost]:
    made = list(nodes.of(plan(EKS, **change)))
    return list(costs.of(made, "us-east-1", plans or {}, **(NOTHING | (prices or {}))))


def test_each_group_and_the_sum() -> None:
    found = of({"live": {P5: price(60)}})
    assert [(one.group, one.usd_per_hour) for one in found] == [("prefill", 120), ("decode", 60)]
    assert costs.total(found) == (180, True)
    assert found[0].line(TODAY) == (
        f"prefill: 2 × {P5}: $120.00/h, $87,600/month, each $60.00/h (HyperPod on demand; 2026-11-25)"
    )
    assert list(costs.check(found, TODAY)) == []


def test_a_missing_price_is_said_and_ec2s_is_no_part_of_the_sum() -> None:
    found = of({"live": {G5: price(3)}}, groups={"decode": {"instance_type": G5}})
    assert costs.total(found) == (3, False)
    assert "no HyperPod price is known; for a feel: $55.04/h (EC2 on-demand, a reference" in found[0].line(TODAY)
    (one,) = costs.check(found, TODAY)
    assert (one.level, one.check, P5 in one.what) == ("warning", "price", True)
    assert f"--price {P5}=DOLLARS" in one.fix


def test_an_old_price_is_said() -> None:
    fresh, old = price(60, Day(2026, 8, 27)), price(60, Day(2026, 8, 26))
    assert list(costs.check(of({"cached": {P5: fresh}}), TODAY)) == []
    (one,) = costs.check(of({"cached": {P5: old}}), TODAY)
    assert "91 days old" in one.what


def test_of_several_types_the_dearest_that_is_known() -> None:
    types = {"instance_type": None, "instance_types": [G5, P5, "ml.p5e.48xlarge"]}
    prefill, _ = of({"live": {P5: price(60), G5: price(3)}}, groups={"prefill": types})
    assert (prefill.instance_type, prefill.usd_per_hour) == (P5, 120)


def test_a_training_plan_is_paid_up_front() -> None:
    arn = "arn:aws:sagemaker:us-east-1:123456789012:training-plan/may"
    prefill, decode = of(
        {"live": {P5: price(60)}}, {arn: {"UpfrontFee": "1234.5"}}, groups={"prefill": {"training_plan": arn}}
    )
    assert costs.total([prefill, decode]) == (60, True)
    assert prefill.line(TODAY).endswith("by its training plan, paid up front ($1,234.50 in all)")
