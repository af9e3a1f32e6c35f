"""Faults: what goes wrong between a client and a server, scripted by the number of the request.

Fault(Effect.CUT_AFTER, nth=3) lets the third writing request take effect and cuts its connection unanswered.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from enum import Enum

WRITES = r"(POST|PUT|PATCH|DELETE) (?!.*/self\w+reviews)"


class Effect(Enum):
    """What becomes of a request."""

    ERROR = "500, without effect"
    CUT_BEFORE = "no answer, without effect"
    CUT_AFTER = "no answer, with its effect"
    THROTTLE = "429 with Retry-After, without effect"
    HOLD = "answered when the fault is released"


@dataclass(slots=True)
class Fault:
    """nth: which of the requests that `requests` (a regular expression on "VERB PATH?QUERY") begins to match, from 1;
    times: how many from there on. retry_after_s: of THROTTLE. HOLD sets `held` and waits for `released`."""

    effect: Effect
    nth: int = 1
    times: int = 1
    requests: str = WRITES
    retry_after_s: int = 1
    seen: int = 0
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class Faults:
    """The faults of a server; those of an earlier place in the list go first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def next(self, request: str) -> Fault | None:
        """The fault that this request runs into; every fault counts it."""
        met = None
        with self._lock:
            for fault in self._faults:
                if re.match(fault.requests, request):
                    fault.seen += 1
                    if fault.nth <= fault.seen < fault.nth + fault.times:
                        met = met or fault
        return met
