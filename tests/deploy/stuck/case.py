"""Case: what a cluster says of a deployment, and the cause that has to come first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hyperpd.deploy.stuck import Seen, Stage


@dataclass(frozen=True)
class Case:
    """seen → a first cause at `stage`, with these words in what it says and in what it proposes.

    log: lines of the container's log. causes: how many there are.
    """

    name: str
    stage: Stage
    what: str
    fix: str
    seen: Seen
    log: Sequence[str] = ()
    causes: int = 1
    why: str = ""
