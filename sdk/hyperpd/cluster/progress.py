"""What long commands tell while they work: small values, given to a callback; `print` will do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hyperpd.cluster.state import Event, Status


@dataclass(frozen=True, slots=True)
class Step:
    """Something was done, or is waited for."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Seen:
    """Where the cluster is; told when something moved."""

    status: Status
    elapsed_s: float  # since the wait began
    typical_min: tuple[int, int] | None = None  # minutes, from and to, that such a wait takes; None: not known

    def __str__(self) -> str:
        return self.status.line()


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of the cluster's."""

    event: Event

    def __str__(self) -> str:
        return self.event.line()


Progress = Step | Seen | Happened
Tell = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Nobody listens."""
