"""What a deployment tells while it works: small values, given to a callback; `print` will do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hyperpd.deploy.parts import Part


@dataclass(frozen=True, slots=True)
class Step:
    """Something was done, or is waited for."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Seen:
    """How far workers and gateways are; told when something moved."""

    parts: tuple[Part, ...]
    elapsed_s: float  # since the wait began

    def line(self) -> str:
        return ", ".join(map(str, self.parts))

    def __str__(self) -> str:
        return self.line()


Progress = Step | Seen
Tell = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Nobody listens."""
