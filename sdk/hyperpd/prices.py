"""Prices of one instance and hour: HyperPod's own, and a dated table of EC2's as a reference.

HyperPod has rates of its own, and the difference is not one factor (1.15 to 1.25 times EC2 where both were seen), so
none is derived from EC2. Of HyperPod's, what is given wins over what AWS's price list says now (price_list.py), that
over what it said when it was last asked, that over the table here; each comes with its date and says what it is.

EC2: on-demand, Linux, us-east-1 and us-east-2, Karpenter's provider data generated 2026-07-20. Types that EC2 sells
only ahead of time (p5e) have no row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date as Day

STALE_AFTER_DAYS = 90


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for one instance and hour, with what the number is."""

    usd_per_hour: float
    what: str
    source: str
    date: Day

    def age_days(self, today: Day) -> int:
        """How old the number is, in days."""
        return (today - self.date).days

    def stale(self, today: Day) -> bool:
        """Whether it is older than 90 days; whoever shows it says so."""
        return self.age_days(today) > STALE_AFTER_DAYS

    def text(self, today: Day) -> str:
        """The price as it is shown: never without what it is, and its age."""
        age = f", {self.age_days(today)} days old: look it up again" if self.stale(today) else ""
        return f"${self.usd_per_hour:,.2f}/h ({self.what}; {self.date.isoformat()}{age})"


WHAT = "EC2 on-demand, a reference: HyperPod bills its own rates"
SOURCE = "EC2 on-demand, Linux, us-east-1 and us-east-2; Karpenter provider data"
DATE = Day(2026, 7, 20)
_USD_PER_HOUR = {
    "ml.g5.xlarge": 1.006,
    "ml.g5.2xlarge": 1.212,
    "ml.g5.8xlarge": 2.448,
    "ml.g5.12xlarge": 5.672,
    "ml.g5.24xlarge": 8.144,
    "ml.g5.48xlarge": 16.288,
    "ml.g6.xlarge": 0.8048,
    "ml.g6.8xlarge": 2.0144,
    "ml.g6.12xlarge": 4.6016,
    "ml.g6.24xlarge": 6.6752,
    "ml.g6.48xlarge": 13.3504,
    "ml.gr6.8xlarge": 2.4464,
    "ml.g6e.xlarge": 1.861,
    "ml.g6e.4xlarge": 3.00424,
    "ml.g6e.8xlarge": 4.52856,
    "ml.g6e.12xlarge": 10.49264,
    "ml.g6e.24xlarge": 15.06559,
    "ml.g6e.48xlarge": 30.13118,
    "ml.g7.12xlarge": 7.12832,
    "ml.g7.48xlarge": 28.51328,
    "ml.g7e.8xlarge": 5.26824,
    "ml.g7e.12xlarge": 8.28608,
    "ml.g7e.24xlarge": 16.57216,
    "ml.g7e.48xlarge": 33.14432,
    "ml.p4d.24xlarge": 21.957642,
    "ml.p4de.24xlarge": 27.44705,
    "ml.p5.4xlarge": 6.88,
    "ml.p5.48xlarge": 55.04,
    "ml.p5en.48xlarge": 63.296,
    "ml.p6-b200.48xlarge": 113.9328,
    "ml.p6-b300.48xlarge": 142.416,
}


def reference(instance_type: str) -> Price | None:
    """EC2's on-demand price of the machine behind `instance_type` ("ml.p5.48xlarge"); None where there is none."""
    usd = _USD_PER_HOUR.get(instance_type)
    return None if usd is None else Price(usd, WHAT, SOURCE, DATE)


HYPERPOD = "HyperPod on demand"
# Two rows that public notes quote from AWS's price list, usage types USE1-Cluster:… and USW2-Cluster:…; a stub's
# 66.048 for ml.p5.48xlarge is no price, and no row.
_HYPERPOD_USD_PER_HOUR = {
    ("us-east-1", "ml.g5.8xlarge"): (3.06, Day(2026, 9, 15)),
    ("us-west-2", "ml.p4d.24xlarge"): (25.91001756, Day(2026, 10, 1)),
}


def given(usd_per_hour: float, today: Day) -> Price:
    """A price that somebody states: a discount, a contract."""
    return Price(usd_per_hour, "as you gave it", "given", today)


def listed(instance_type: str, region: str) -> Price | None:
    """The table's HyperPod price; None where it has none, as for most."""
    row = _HYPERPOD_USD_PER_HOUR.get((region, instance_type))
    return row and Price(row[0], f"{HYPERPOD}, a table's", "AWS price list, quoted in public notes", row[1])


def hyperpod(
    instance_type: str,
    region: str,
    *,
    overrides: Mapping[str, Price],
    live: Mapping[str, Price],
    cached: Mapping[str, Price],
) -> Price | None:
    """HyperPod's price of a type: given, else of now, else of when it was last looked up, else the table's. Never
    EC2's; None where none of them has it."""
    for known in (overrides, live, cached):
        if instance_type in known:
            return known[instance_type]
    return listed(instance_type, region)
