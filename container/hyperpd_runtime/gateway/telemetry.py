"""What happened to a request, as metrics and as one log line. Never prompt text."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

log = logging.getLogger("hyperpd.gateway")
registry = CollectorRegistry()

REQUESTS = Counter(
    "hyperpd_requests",
    "Requests by how they were served and how they ended",
    ["mode", "why", "outcome"],
    registry=registry,
)
FAULTS = Counter(
    "hyperpd_faults", "Faults on the way from prefill to decode, each followed by a retry", ["kind"], registry=registry
)
RECOMPUTED = Counter(
    "hyperpd_recomputed_requests",
    "Prompts that decode computed although prefill was meant to",
    ["why"],
    registry=registry,
)
DECISIONS = Counter(
    "hyperpd_decisions",
    "Requests by what their shape asks for: disaggregated, split, decode_only, refused, or passed to one worker",
    ["decision", "why"],
    registry=registry,
)
HANDOFFS = Counter(
    "hyperpd_handoffs",
    "Tickets by what became of them: decoded, late, failed",
    ["outcome"],
    registry=registry,
)
IN_FLIGHT = Gauge("hyperpd_in_flight_requests", "Requests whose last byte has not been sent", registry=registry)
WAITING = Gauge(
    "hyperpd_waiting_handoffs", "Requests not yet prefilled because decode has no room for them", registry=registry
)
RELEASED = Counter("hyperpd_released_tickets", "Tickets given back because nobody would decode them", registry=registry)
RESOLVED = Gauge(
    "hyperpd_resolved_workers", "Workers that a DNS name or endpoints file last named", ["source"], registry=registry
)
RESOLUTION_FAILURES = Counter(
    "hyperpd_resolution_failures",
    "DNS names that could not be resolved, endpoints files that could not be used; their workers stay as they were",
    ["source"],
    registry=registry,
)
KEY_FILE_FAILURES = Counter(
    "hyperpd_key_file_failures", "Changes of the key file that could not be used; the keys stay", registry=registry
)
STRIPPED = Counter(
    "hyperpd_stripped",
    "Headers and fields that would have steered, dropped (gateway.steering: strip)",
    ["where", "what"],
    registry=registry,
)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
PREFILL_S = Histogram("hyperpd_prefill_seconds", "Prefill leg, sent to answered", buckets=_SECONDS, registry=registry)
FIRST_EVENT_S = Histogram(
    "hyperpd_first_event_seconds", "Streams: request read to first decode event", buckets=_SECONDS, registry=registry
)
TOTAL_S = Histogram("hyperpd_request_seconds", "Request read to last byte", buckets=_SECONDS, registry=registry)

_MODES = ("-", "pd", "aggregated", "decode_only", "recomputed")


@dataclass(slots=True)
class Record:
    """Stamps and decisions of one request; `end` turns them into metrics and a line, once."""

    request_id: str
    client_id: str = "-"
    key: str = "-"  # the name of the client's key
    decision: str = "-"  # what its shape asks for
    why: str = "-"
    mode: str = "-"  # what was done
    prefill: str = "-"
    decode: str = "-"
    prefill_s: float | None = None
    first_event_s: float | None = None
    began_s: float = field(default_factory=time.monotonic)
    ended: bool = False
    part: bool = False  # of a split request, which alone is counted
    on_end: list[Callable[[], None]] = field(default_factory=list)

    def decide(self, decision: str, why: str) -> None:
        """Note and count what the shape of a request asks for."""
        self.decision, self.why = decision, why
        DECISIONS.labels(decision, why).inc()

    def for_part(self) -> Record:
        """The record of one part of this request."""
        return Record(self.request_id, self.client_id, self.key, self.decision, self.why, part=True)

    def gather(self, parts: Sequence[Record]) -> None:
        """Take over what was done for the parts: the worst of it."""
        self.mode = max((part.mode for part in parts), key=_MODES.index)
        self.prefill, self.decode = parts[0].prefill, parts[0].decode
        self.first_event_s = min((part.first_event_s for part in parts if part.first_event_s), default=None)

    def explanation(self) -> str:
        """For who asks for it: decision, reason, and what was done."""
        return f"{self.decision}; reason={self.why}; served={self.mode}"

    def fault(self, kind: str, detail: str) -> None:
        """Count and log something that went wrong and will be retried."""
        FAULTS.labels(kind).inc()
        log.warning("event=fault request_id=%s kind=%s worker=%s detail=%r", self.request_id, kind, self.decode, detail)

    def recompute(self, why: str) -> None:
        """The prompt will be computed by decode after all: visible, never silent."""
        self.mode = "recomputed"
        RECOMPUTED.labels(why).inc()

    def first_event(self, *, streamed: bool) -> None:
        """Decode said something: of a stream its first event, else the whole answer, which is no first token."""
        self.first_event_s = time.monotonic() - self.began_s
        if streamed and not self.part and self.mode != "canary":
            FIRST_EVENT_S.observe(self.first_event_s)

    def end(self, outcome: str) -> None:
        if self.ended:
            return
        self.ended = True
        with contextlib.ExitStack() as leaving:  # all of them, also where one breaks
            for leave in self.on_end:
                leaving.callback(leave)
        if self.part:
            return
        total_s = time.monotonic() - self.began_s
        TOTAL_S.observe(total_s)
        REQUESTS.labels(self.mode, self.why, outcome).inc()
        log.info(
            "event=request request_id=%s client_id=%r key=%s decision=%s why=%s mode=%s prefill=%s decode=%s"
            " prefill_ms=%s first_event_ms=%s total_ms=%.0f outcome=%s",
            *(self.request_id, self.client_id, self.key, self.decision, self.why, self.mode, self.prefill, self.decode),
            *(_ms(self.prefill_s), _ms(self.first_event_s), total_s * 1000, outcome),
        )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}"
