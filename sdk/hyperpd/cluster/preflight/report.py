"""Preflight: what was found before money is spent, and what it will cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date as Day

from hyperpd.cluster.names import Place
from hyperpd.cluster.preflight import costs
from hyperpd.cluster.preflight.costs import Cost
from hyperpd.cluster.preflight.finding import Finding, Level
from hyperpd.errors import CapacityError, CloudError, HyperpdError, RecipeError


@dataclass(frozen=True, slots=True)
class Preflight:
    """place: None where AWS was not asked. checked: what was looked at, in words."""

    findings: tuple[Finding, ...]
    costs: tuple[Cost, ...]
    checked: tuple[str, ...]
    place: Place | None
    today: Day

    def of(self, level: Level) -> list[Finding]:
        """The findings of a level."""
        return [one for one in self.findings if one.level == level]

    @property
    def ok(self) -> bool:
        """Nothing stands in the way; what could not be checked may."""
        return not self.of("problem")

    def error(self) -> HyperpdError | None:
        """All problems as one error, of the kind that has to be solved first: the file, then capacity, then the
        account. None where there is none."""
        problems = self.of("problem")
        if not problems:
            return None
        said = [f"{one.what}; {one.where}; {one.fix.splitlines()[0]}" for one in problems]
        if any(one.kind is RecipeError for one in problems):
            return RecipeError("preflight", said)
        text = "\n".join(
            [f"preflight: {len(said)} problem{'s' if len(said) != 1 else ''}", *(f"  - {one}" for one in said)]
        )
        return CapacityError(text) if any(one.kind is CapacityError for one in problems) else CloudError(text)

    def lines(self) -> Iterator[str]:
        """As it is shown: problems first."""
        for level in ("problem", "unknown", "warning"):
            for one in self.of(level):
                yield from one.lines()
        for cost in self.costs:
            yield f"cost: {cost.line(self.today)}"
        usd, whole = costs.total(list(self.costs))
        more = "" if whole else ", and what has no price"
        monthly = usd * costs.HOURS_PER_MONTH
        yield f"cost: ${usd:,.2f}/h, ${monthly:,.0f}/month in all{more}; storage and traffic come on top"
        yield ", ".join(f"{word}: {len(self.of(level))}" for level, word in _WORDS.items())
        yield f"checked: {', '.join(self.checked)}"

    def document(self) -> dict[str, object]:
        """For --json."""
        usd, whole = costs.total(list(self.costs))
        return {
            "ok": self.ok,
            "account": self.place.account if self.place else None,
            "region": self.place.region if self.place else None,
            "findings": [
                {
                    "level": one.level,
                    "check": one.check,
                    "what": one.what,
                    "where": one.where,
                    "fix": one.fix.splitlines(),
                }
                for one in self.findings
            ],
            "costs": [
                {
                    "group": one.group,
                    "instance_type": one.instance_type,
                    "count": one.count,
                    "usd_per_hour": one.usd_per_hour,
                    "price": one.line(self.today),
                    "price_date": one.price.date.isoformat() if one.price else None,
                    "paid_up_front": bool(one.paid),
                }
                for one in self.costs
            ],
            "usd_per_hour": usd,
            "usd_per_month": usd * costs.HOURS_PER_MONTH,
            "every_price_known": whole,
            "checked": list(self.checked),
        }


_WORDS: dict[Level, str] = {"problem": "problems", "unknown": "not checked", "warning": "warnings"}
