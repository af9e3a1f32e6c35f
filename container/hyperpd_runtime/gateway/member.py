"""What the gateway knows of one worker, and of one way for KV between two of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hyperpd import pairing
from hyperpd.pairing import Fingerprint
from hyperpd_runtime.gateway.discovery import Endpoint
from hyperpd_runtime.gateway.room import ENGINE_SEQUENCES, Room

ENGINE_LEASE_S = 30  # vLLM's default, for a plain engine that says nothing of itself


def nobody(_: Any) -> None:
    """Is told of changes where no pool is."""


class Member:
    """One worker as the gateway sees it. changed: is told when it may be picked, or no longer."""

    def __init__(self, endpoint: Endpoint, sequences: int = ENGINE_SEQUENCES) -> None:
        self.endpoint = endpoint
        self.name = endpoint.name
        self.role = endpoint.role
        self.url = endpoint.url
        self.admin_url = endpoint.admin_url
        self.certified = endpoint.certified or None
        self.fingerprint: Fingerprint | None = None  # what the worker says of itself; a plain engine says nothing
        self.recipe_digest = ""
        self.salt = ""  # set for good once its prefix cache may hold wrong blocks: no request finds those again
        self.changed: Callable[[Member], None] = nobody
        self.why = "not probed yet"
        self._healthy = False
        self._belongs = True
        self.room = Room(sequences)  # for handoffs
        self.prefill_s = 0.0  # what a prefill took lately, on average

    @property
    def healthy(self) -> bool:
        """By the last probe; `why` says why not."""
        return self._healthy

    @healthy.setter
    def healthy(self, healthy: bool) -> None:
        if healthy != self._healthy:
            self._healthy = healthy
            self.changed(self)

    @property
    def belongs(self) -> bool:
        """False where it can pair with no prefill worker we know: it may serve another model."""
        return self._belongs

    @belongs.setter
    def belongs(self, belongs: bool) -> None:
        if belongs != self._belongs:
            self._belongs = belongs
            self.changed(self)


class Pair:
    """One way for KV: a prefill and a decode worker. Serves only after a canary came through.

    changed: is told when it is proven, or no longer.
    """

    def __init__(self, prefill: Member, decode: Member, lease_s: float = ENGINE_LEASE_S) -> None:
        """lease_s: of a prefill worker that says nothing of itself."""
        self.prefill = prefill
        self.decode = decode
        self._lease_s = lease_s
        self.changed: Callable[[Pair], None] = nobody
        self._proven = False
        self.doubts = 0
        self.broken: list[str] | None = None  # rules that forbid it; None until both have said what they are
        self.try_after_s = 0.0
        self.judge("not tried yet")

    @property
    def proven(self) -> bool:
        """Whether a canary came through, and nothing has been doubted since."""
        return self._proven

    @proven.setter
    def proven(self, proven: bool) -> None:
        if proven != self._proven:
            self._proven = proven
            self.changed(self)

    @property
    def lease_s(self) -> float:
        """How long prefill keeps a ticket's blocks, by its own word where it has said it."""
        return self.prefill.fingerprint.lease_s if self.prefill.fingerprint else self._lease_s

    def doubt(self, why: str) -> None:
        """Take the pair out until the next canary."""
        self.why, self.proven = why, False
        self.doubts += 1

    def judge(self, why: str) -> None:
        """Doubt the pair, and look at what its workers now say of themselves."""
        left, right = self.prefill.fingerprint, self.decode.fingerprint
        self.broken = pairing.compatible(left, right) if left and right else None
        self.doubt("; ".join(self.broken) if self.broken else why)
