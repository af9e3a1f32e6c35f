"""A dated table of EC2 on-demand prices: a reference, never what HyperPod bills.

HyperPod has rates of its own, and the difference is not one factor (1.15 to 1.25 times EC2 where both
were seen), so none is derived here. Source: EC2 on-demand, Linux, us-east-1 and us-east-2, Karpenter's
provider data generated 2026-07-20. Types that EC2 sells only ahead of time (p5e) have no row.
"""

from __future__ import annotations

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
