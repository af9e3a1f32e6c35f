"""What the cluster costs: per group, hour and month, with the date of each price. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date as Day

from hyperpd import prices
from hyperpd.cluster.preflight.finding import Finding, warning
from hyperpd.cluster.preflight.nodes import Nodes
from hyperpd.cluster.preflight.reading import Object
from hyperpd.prices import Price

HOURS_PER_MONTH = 730


@dataclass(frozen=True, slots=True)
class Cost:
    """A group's nodes. price: HyperPod's, None where none is known; reference: EC2's, never counted."""

    group: str
    instance_type: str
    count: int
    price: Price | None
    reference: Price | None
    paid: str = ""  # a training plan's fee, which is paid up front instead

    @property
    def usd_per_hour(self) -> float | None:
        """Of all its nodes; None where no price is known."""
        if self.paid or not self.count:
            return 0.0
        return None if self.price is None else self.count * self.price.usd_per_hour

    def line(self, today: Day) -> str:
        """As it is shown: never without what the price is."""
        named = f"{self.group}: {self.count} × {self.instance_type}"
        if self.paid:
            return f"{named}: {self.paid}"
        if self.price:
            hourly = self.count * self.price.usd_per_hour
            return f"{named}: ${hourly:,.2f}/h, ${hourly * HOURS_PER_MONTH:,.0f}/month, each {self.price.text(today)}"
        said = f"{named}: no HyperPod price is known"
        return f"{said}; for a feel: {self.reference.text(today)}" if self.reference else said


def of(
    nodes: list[Nodes],
    region: str,
    plans: Mapping[str, Object],
    *,
    overrides: Mapping[str, Price],
    live: Mapping[str, Price],
    cached: Mapping[str, Price],
) -> Iterator[Cost]:
    """Of several types, the dearest that has a price: which will come is not known."""
    for one in nodes:
        known = {
            name: price
            for name in one.types
            if (price := prices.hyperpod(name, region, overrides=overrides, live=live, cached=cached))
        }
        name = max(known, key=lambda each: known[each].usd_per_hour, default=one.types[0])
        paid = ""
        if arn := one.group.training_plan:
            fee = plans.get(arn, {}).get("UpfrontFee")
            paid = f"by its training plan, paid up front{f' (${float(fee):,.2f} in all)' if fee else ''}"
        yield Cost(one.name, name, one.count, known.get(name), prices.reference(name), paid)


def check(costs: list[Cost], today: Day) -> Iterator[Finding]:
    """Prices that are missing or old."""
    seen = set()
    for one in costs:
        if one.usd_per_hour == 0.0 or one.instance_type in seen:
            continue
        seen.add(one.instance_type)
        fix = f"give it: hyperpd cluster plan … --price {one.instance_type}=DOLLARS (https://aws.amazon.com/sagemaker/ai/pricing/)"
        if one.price is None:
            yield warning("price", f"no HyperPod price of {one.instance_type} is known", "costs", fix)
        elif one.price.stale(today):
            what = f"the price of {one.instance_type} is of {one.price.date}, {one.price.age_days(today)} days old"
            yield warning("price", what, "costs", fix)


def total(costs: list[Cost]) -> tuple[float, bool]:
    """Dollars per hour of what has a price, and whether that is all."""
    known = [one.usd_per_hour for one in costs]
    return sum(usd for usd in known if usd is not None), None not in known
