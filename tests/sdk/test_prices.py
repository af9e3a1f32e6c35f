"""Prices of HyperPod: which one wins, how old it is, and never EC2's."""

from __future__ import annotations

import json
from datetime import date as Day
from pathlib import Path
from typing import Any

import pytest

from hyperpd import price_list, prices
from hyperpd.prices import Price

TODAY = Day(2026, 11, 25)
P5, G5 = "ml.p5.48xlarge", "ml.g5.8xlarge"


def price(usd: float, what: str = "a") -> Price:
    return Price(usd, what, "test", TODAY)


def test_given_wins_over_now_over_then_over_the_table() -> None:
    sources: dict[str, Any] = {"overrides": {G5: price(1)}, "live": {G5: price(2)}, "cached": {G5: price(3)}}
    for name, usd in (("overrides", 1), ("live", 2), ("cached", 3)):
        found = prices.hyperpod(G5, "us-east-1", **sources)
        assert found
        assert found.usd_per_hour == usd
        sources[name] = {}
    found = prices.hyperpod(G5, "us-east-1", **sources)
    assert found
    assert (found.usd_per_hour, found.date) == (3.06, Day(2026, 9, 15))


def test_no_price_is_none_and_never_ec2s_or_another_regions() -> None:
    nothing: dict[str, Any] = {"overrides": {}, "live": {}, "cached": {}}
    assert prices.reference(P5)
    assert prices.hyperpod(P5, "us-east-1", **nothing) is None
    assert prices.hyperpod(G5, "us-west-2", **nothing) is None


def test_an_old_price_says_so() -> None:
    table = prices.listed(G5, "us-east-1")
    assert table
    assert "days old" not in table.text(Day(2026, 12, 14))
    assert "91 days old: look it up again" in table.text(Day(2026, 12, 15))


def product(**attributes: str) -> str:
    found = {"instanceType": f"{P5}-Cluster", "component": "Cluster", "regionCode": "us-east-2"}
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": "60.5000000000"}}
    terms = {"OnDemand": {"t": {"priceDimensions": {"d": dimension}}}}
    return json.dumps({"product": {"attributes": found | attributes}, "terms": terms})


@pytest.mark.parametrize(
    "attributes",
    [
        {"instanceType": P5, "component": "Studio"},
        {"component": "Notebook"},
        {"regionCode": "us-east-1"},
        {"usagetype": f"USE2-ReservedCluster:{P5}"},
        {"usagetype": "USE2-Cluster:ml.p5.4xlarge"},
    ],
)
def test_what_is_not_hyperpods_price_is_not_taken(attributes: dict[str, str]) -> None:
    assert list(price_list.hourly([product(**attributes)], P5, "us-east-2")) == []
    assert list(price_list.hourly([product(usagetype=f"USE2-Cluster:{P5}")], P5, "us-east-2")) == [60.5]


def test_other_units_and_reserved_terms_are_not_taken() -> None:
    one = json.loads(product())
    one["terms"] = {"Reserved": one["terms"]["OnDemand"]}
    assert list(price_list.hourly([one], P5, "us-east-2")) == []
    one["terms"] = {"OnDemand": {"t": {"priceDimensions": {"d": {"unit": "Quantity", "pricePerUnit": {"USD": "9"}}}}}}
    assert list(price_list.hourly([one], P5, "us-east-2")) == []


def test_what_was_looked_up_is_kept_with_its_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert price_list.cached("us-east-2") == {}
    price_list._keep("us-east-2", {P5: price(60.5)})
    price_list._keep("us-east-2", {G5: price(3)})
    price_list._keep("us-east-1", {P5: price(66)})
    found = price_list.cached("us-east-2")
    assert {name: (one.usd_per_hour, one.date) for name, one in found.items()} == {P5: (60.5, TODAY), G5: (3, TODAY)}
    assert "as it was" in found[P5].text(TODAY)
    for broken in ("", "[]", '{"us-east-2": []}', '{"us-east-2": {"a": {"date": "x", "usd_per_hour": 1}}}'):
        (tmp_path / "hyperpd" / "prices.json").write_text(broken)
        assert price_list.cached("us-east-2") == {}
    price_list._keep("us-east-2", {P5: price(61)})
    assert price_list.cached("us-east-2")[P5].usd_per_hour == 61
