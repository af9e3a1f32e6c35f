"""Finding: one thing that is wrong, worth a look, or could not be checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hyperpd.errors import CapacityError, CloudError, HyperpdError, RecipeError

Level = Literal["problem", "warning", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """problem: creating fails, or costs money for nothing. warning: it works, and not as meant. unknown: not checked.

    `fix` has a step in each line: a command to paste (it begins with aws, pip, sed …), "set PATH: VALUE" for the
    cluster file, or a place in the console. "ID" in a step is what the command before it prints.
    """

    level: Level
    check: str  # its name, for programs: security-group, quota, …
    what: str  # with the value
    where: str  # path in the cluster file, or place in the console
    fix: str
    kind: type[HyperpdError] = CloudError  # what the problem is raised as: its exit code

    def lines(self) -> list[str]:
        """As it is shown."""
        first, *more = [_told(line) for line in self.fix.splitlines()] or [""]
        return [
            f"{self.level}: {self.what}",
            f"    where: {self.where}",
            f"    fix:   {first}",
            *(f"           {line}" for line in more),
        ]


def _told(step: str) -> str:
    """A step for a reader: where an edit belongs, and what ID stands for."""
    if not step.startswith("set "):
        return step
    return f"{step}    (in the cluster file{'; ID: what the command printed' if '[ID]' in step else ''})"


def written(check: str, what: str, where: str, fix: str) -> Finding:
    """A problem of the cluster file or of lifecycle files."""
    return Finding("problem", check, what, where, fix, RecipeError)


def lacking(check: str, what: str, where: str, fix: str) -> Finding:
    """A problem of capacity: it does not fit."""
    return Finding("problem", check, what, where, fix, CapacityError)


def refused(check: str, what: str, where: str, fix: str) -> Finding:
    """A problem of the account."""
    return Finding("problem", check, what, where, fix, CloudError)


def warning(check: str, what: str, where: str, fix: str) -> Finding:
    """It works, and not as meant."""
    return Finding("warning", check, what, where, fix)


def unknown(check: str, what: str, where: str, fix: str) -> Finding:
    """What could not be checked."""
    return Finding("unknown", check, what, where, fix)
