"""What happened to a request, as metrics and as one log line. Never prompt text."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aiohttp import ClientConnectorError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from hyperpd.errors import HyperpdError
from hyperpd_runtime.gateway import usage

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
ROUTING = Counter(
    "hyperpd_routing",
    "Requests, and parts of split ones, by why they were prefilled where they were: remote, or the reason why not",
    ["reason"],
    registry=registry,
)
CALIBRATED = Gauge(
    "hyperpd_routing_calibrated",
    "0 while predictions start from rough values, not from measured ones",
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
STALLED = Counter(
    "hyperpd_stalled_readers", "Clients that were cut because they did not read what waited for them", registry=registry
)
CERTIFICATE = Gauge(
    "hyperpd_certificate_not_taken",
    "1 while the certificate's files, as they are now, cannot be used; it stays as it was",
    registry=registry,
)
CERTIFICATE_EXPIRES = Gauge(
    "hyperpd_certificate_expires_seconds", "Until the certificate expires; no number without one", registry=registry
)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
PREFILL_S = Histogram("hyperpd_prefill_seconds", "Prefill leg, sent to answered", buckets=_SECONDS, registry=registry)
FIRST_EVENT_S = Histogram(
    "hyperpd_first_event_seconds", "Streams: request read to first decode event", buckets=_SECONDS, registry=registry
)
QUEUE_S = Histogram(
    "hyperpd_queue_seconds", "Waiting for room at decode, before the prefill", buckets=_SECONDS, registry=registry
)
HANDOFF_S = Histogram(
    "hyperpd_handoff_seconds",
    "Streams: prefill's answer to decode's first event, transfer included",
    buckets=_SECONDS,
    registry=registry,
)
TOKENS = Counter(
    "hyperpd_tokens",
    "Tokens of answers that say their usage: prompt, cached (of it), output",
    ["kind"],
    registry=registry,
)
TOTAL_S = Histogram("hyperpd_request_seconds", "Request read to last byte", buckets=_SECONDS, registry=registry)

_TAIL_BYTES = 4096  # of an answer; usage stands in its last event but one, or near the end of a document
_WHOLE = ("ok", "split")  # outcomes of requests, and of parts of one, that were answered to the end
_NO_TOKEN_EVENTS = 1  # of a stream, at least: that it has ended
_MODES = ("-", "pd", "aggregated", "local", "decode_only", "recomputed")


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
    queue_s: float | None = None
    prefill_s: float | None = None
    handoff_s: float | None = None  # of streams
    first_event_s: float | None = None  # of streams
    said: bytes = b""  # the end of the answer
    began_s: float = field(default_factory=time.monotonic)
    ended: bool = False
    outcome: str = "-"
    tokens: dict[str, int] = field(default_factory=dict)  # that the answer says, once it is over
    _prefilled_s: float | None = None  # monotonic, while its ticket is good
    part: bool = False  # of a split request, which alone is counted
    reason: str = "-"  # of where it was prefilled: see ROUTING
    explain: bool = False  # whoever asks wants to know
    events: int = 0  # of a stream, so far
    on_first: list[Callable[[], None]] = field(default_factory=list)  # a stream's first event came
    at_work: Callable[[], None] = lambda: None  # called when decode has begun to work
    on_end: list[Callable[[], None]] = field(default_factory=list)

    def decide(self, decision: str, why: str) -> None:
        """Note and count what the shape of a request asks for."""
        self.decision, self.why = decision, why
        DECISIONS.labels(decision, why).inc()

    def for_part(self) -> Record:
        """The record of one part of this request."""
        return Record(
            *(self.request_id, self.client_id, self.key, self.decision, self.why),
            explain=self.explain,
            part=True,
            at_work=self.at_work,
        )

    def gather(self, parts: Sequence[Record]) -> None:
        """Take over what was done for the parts: the worst of it."""
        self.mode = max((part.mode for part in parts), key=_MODES.index)
        self.prefill, self.decode, self.reason = parts[0].prefill, parts[0].decode, parts[0].reason
        self.queue_s, self.prefill_s, self.handoff_s = (
            max((stamp for part in parts if (stamp := getattr(part, name)) is not None), default=None)
            for name in ("queue_s", "prefill_s", "handoff_s")
        )
        self.first_event_s = min((part.first_event_s for part in parts if part.first_event_s), default=None)

    def explanation(self) -> str:
        """For who asks for it: decision, reason, and what was done."""
        return f"{self.decision}; reason={self.why}; routing={self.reason}; served={self.mode}"

    def fault(self, kind: str, detail: str) -> None:
        """Count and log something that went wrong and will be retried."""
        FAULTS.labels(kind).inc()
        log.warning("event=fault request_id=%s kind=%s worker=%s detail=%r", self.request_id, kind, self.decode, detail)

    def recompute(self, why: str) -> None:
        """The prompt will be computed by decode after all: visible, never silent."""
        self.mode = "recomputed"
        self._prefilled_s = self.handoff_s = None
        RECOMPUTED.labels(why).inc()

    def prefilled(self, sent_s: float) -> None:
        """Prefill answered what was sent at `sent_s` (monotonic)."""
        self._prefilled_s = time.monotonic()
        self.prefill_s = self._prefilled_s - sent_s
        PREFILL_S.observe(self.prefill_s)

    def first_event(self, *, streamed: bool) -> None:
        """Decode said something: of a stream its first event; a whole answer says nothing of its first token."""
        if not streamed:
            return
        for told in self.on_first:
            told()
        now_s = time.monotonic()
        self.first_event_s = now_s - self.began_s
        if self._prefilled_s is not None:
            self.handoff_s = now_s - self._prefilled_s

    def begun(self) -> None:
        """A stream goes to the client: its first event was no error."""
        if self.first_event_s is not None:
            FIRST_EVENT_S.observe(self.first_event_s)
        if self.handoff_s is not None:
            HANDOFF_S.observe(self.handoff_s)

    def hear(self, answer: bytes) -> None:
        """What goes to the client; the end of it is kept, and read once, when all is said."""
        self.said = (self.said + answer)[-_TAIL_BYTES:]

    def output_tokens(self) -> int:
        """What was generated, of a whole answer: by its usage, or a stream's events, of which most are a token."""
        if self.outcome not in _WHOLE:
            return 0
        return self.tokens.get("output") or max(self.events - _NO_TOKEN_EVENTS, 0)

    def end(self, outcome: str) -> None:
        """It is over: `ok`, `split` (a part's own end), or what went wrong. Only the first word counts."""
        if self.ended:
            return
        self.ended, self.outcome = True, outcome
        self.tokens = usage.tokens(self.said)
        with contextlib.ExitStack() as leaving:  # all of them, also where one breaks
            for leave in self.on_end:
                leaving.callback(leave)
        if self.part:
            return
        total_s = time.monotonic() - self.began_s
        TOTAL_S.observe(total_s)
        if self.queue_s is not None:
            QUEUE_S.observe(self.queue_s)
        for kind, count in self.tokens.items():
            TOKENS.labels(kind).inc(count)
        REQUESTS.labels(self.mode, self.why, outcome).inc()
        log.info(
            "event=request request_id=%s client_id=%r key=%s decision=%s why=%s reason=%s mode=%s prefill=%s decode=%s"
            " queue_ms=%s prefill_ms=%s handoff_ms=%s first_token_ms=%s total_ms=%s"
            " prompt_tokens=%s cached_tokens=%s output_tokens=%s outcome=%s",
            *(self.request_id, self.client_id, self.key, self.decision, self.why, self.reason, self.mode),
            *(self.prefill, self.decode),
            *map(_ms, (self.queue_s, self.prefill_s, self.handoff_s, self.first_event_s, total_s)),
            *(self.tokens.get(kind, "-") for kind in ("prompt", "cached", "output")),
            outcome,
        )


def described(error: BaseException) -> str:
    """An error for the log: in our words, or the system's. aiohttp's own quote what the engine sent."""
    ours = isinstance(error, HyperpdError | ClientConnectorError)
    return str(error) if ours else type(error).__name__


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}"
