"""Prefill's leases as NIXL keeps them, by a clock that only the test moves: ends, heartbeats, late reads.

vllm/distributed/kv_transfer/kv_connector/v1/nixl, 0.32: a lease ends `lease_s` after its prefill; decode renews those
it waits for every sixth of it (whole seconds), each time to two thirds of it from then (whole seconds, never less than
there was). tests/real/test_recorded.py holds this arithmetic to that code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_NEEDED = ("remote_engine_id", "remote_request_id", "remote_host", "remote_port", "tp_size")  # or nothing is renewed


@dataclass
class Lease:
    """What prefill keeps for one ticket."""

    holder: str  # the prefill worker
    prompt: str
    ends_s: float
    ended: bool = False


class Leases(dict[str, Lease]):
    """All that are open or have ended unread, by request id; shared by the workers of one fleet, as is the clock."""

    def __init__(self, lease_s: int = 30) -> None:
        super().__init__()
        assert lease_s >= 6, "decode would renew in no time"
        self.lease_s = lease_s
        self.now_s = 0.0
        self._hearts: list[Heart] = []
        self._ended: Counter[str] = Counter()  # not yet counted, by holder
        self._latest = (0.0, "")  # when a prompt's blocks were computed last, and which prompt's

    def open(self, request_id: str, holder: str, prompt: str) -> None:
        """A prefill has ended."""
        self[request_id] = Lease(holder, prompt, self.now_s + self.lease_s)
        self._latest = self.now_s, prompt

    def read(self, request_id: str) -> str:
        """Decode reads the blocks and tells prefill. The prompt whose KV is there: after the lease, another's.

        Real blocks may not have been used again yet, and the answer be right by luck; here none is.
        """
        lease = self.pop(request_id, None)
        if lease and not lease.ended:
            return lease.prompt
        computed_s, prompt = self._latest
        reused = lease and computed_s >= lease.ends_s and prompt != lease.prompt
        return prompt if reused else "freed blocks"

    def renew(self, message: str) -> None:
        """A heartbeat: request ids with commas between, so one that has a comma in itself is never found."""
        for request_id in message.removeprefix("HB:").split(","):
            lease = self.get(request_id)
            if lease and not lease.ended:
                lease.ends_s = max(lease.ends_s, self.now_s + self.lease_s * 2 // 3)

    def pinned(self, holder: str = "") -> int:
        """How many leases hold blocks: of one worker, or of all."""
        return sum(not lease.ended and holder in ("", lease.holder) for lease in self.values())

    def count_expired(self, holder: str) -> int:
        """How many of a worker's have ended since it last asked, which it does when it steps."""
        return self._ended.pop(holder, 0)

    def heart(self, stands_still: Callable[[], bool]) -> Heart:
        """The heartbeats of one more decode worker."""
        self._hearts.append(Heart(self, stands_still))
        return self._hearts[-1]

    def forward(self, seconds: float) -> None:
        """Let time pass; whatever heartbeat is due on the way is sent."""
        end_s = self.now_s + seconds
        while (next_s := min([*self._due_s()], default=end_s + 1)) <= end_s:
            self.now_s = max(self.now_s, next_s)
            for heart in self._hearts:
                heart.beat()
            for lease in self.values():
                if not lease.ended and lease.ends_s <= self.now_s:
                    lease.ended = True
                    self._ended[lease.holder] += 1
        self.now_s = end_s

    def _due_s(self) -> Iterator[float]:
        """When something happens: a heartbeat, the end of a lease."""
        yield from (heart.due_s for heart in self._hearts)
        yield from (lease.ends_s for lease in self.values() if not lease.ended)


@dataclass(eq=False)
class Heart:
    """What one decode worker renews: what its scheduler has accepted and not yet read."""

    leases: Leases
    stands_still: Callable[[], bool]
    waiting: dict[str, str] = field(default_factory=dict)  # request id → engine id
    known: set[str] = field(default_factory=set)  # engines it has shaken hands with
    last_s: float = float("-inf")

    @property
    def due_s(self) -> float:
        """When the next heartbeat is sent."""
        idle = not self.waiting or self.stands_still()
        return float("inf") if idle else self.last_s + self.leases.lease_s // 6

    def accept(self, ticket: Mapping[str, Any]) -> None:
        """The scheduler has a request with a ticket."""
        if all(ticket.get(name) is not None for name in _NEEDED):
            self.waiting[ticket["remote_request_id"]] = ticket["remote_engine_id"]
            self.beat()

    def leave(self, ticket: Mapping[str, Any]) -> None:
        """It waits no more: it has its blocks, or was aborted."""
        self.waiting.pop(ticket["remote_request_id"], None)

    def read(self, ticket: Mapping[str, Any]) -> str:
        """Get the blocks of a ticket; the prompt that they are of."""
        self.leave(ticket)
        self.known.add(ticket["remote_engine_id"])
        return self.leases.read(ticket["remote_request_id"])

    def beat(self) -> None:
        """Renew what is waited for, if it is time; the first message to an engine only begins to shake hands."""
        if self.due_s > self.leases.now_s:
            return
        self.last_s = self.leases.now_s
        for engine in sorted({*self.waiting.values()}):
            if engine in self.known:
                self.leases.renew("HB:" + ",".join(one for one, its in self.waiting.items() if its == engine))
            self.known.add(engine)
