"""KV transfers between workers: each worker has its GPUs' share of its node's network, split evenly among what moves.

A transfer gets the smaller of what its sender and its receiver can give it; what one side leaves goes to nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Link:
    """One worker's way to the network, in bytes/s each direction."""

    bytes_s: float
    sending: int = 0
    receiving: int = 0


@dataclass(slots=True)
class _Transfer:
    sender: Link
    receiver: Link
    left_bytes: float
    done: Callable[[float], None]
    bytes_s: float = 0.0


@dataclass(slots=True)
class Network:
    """`at`: calls a function at a time. Transfers that are under way, and when the next of them ends."""

    at: Callable[[float, Callable[[float], None]], None]
    _moving: list[_Transfer] = field(default_factory=list)
    _settled_s: float = 0.0
    _turn: int = 0

    def start(
        self, now_s: float, sender: Link, receiver: Link, moved_bytes: float, done: Callable[[float], None]
    ) -> None:
        """Begin to move `moved_bytes`; `done` is called with the time at which the last has arrived."""
        self._settle(now_s)
        sender.sending += 1
        receiver.receiving += 1
        self._moving.append(_Transfer(sender, receiver, moved_bytes, done))
        self._share(now_s)

    def _settle(self, now_s: float) -> None:
        for one in self._moving:
            one.left_bytes -= one.bytes_s * (now_s - self._settled_s)
        self._settled_s = now_s

    def _share(self, now_s: float) -> None:
        for one in self._moving:
            one.bytes_s = min(one.sender.bytes_s / one.sender.sending, one.receiver.bytes_s / one.receiver.receiving)
        self._turn += 1
        if self._moving:
            turn = self._turn
            next_s = now_s + max(0.0, min(one.left_bytes / one.bytes_s for one in self._moving))
            self.at(next_s, lambda then_s: self._end(then_s, turn))

    def _end(self, now_s: float, turn: int) -> None:
        if turn != self._turn:  # another transfer began or ended since
            return
        self._settle(now_s)
        # A byte is the grain: floating point leaves fractions of one.
        ended = [one for one in self._moving if one.left_bytes < 1]
        self._moving = [one for one in self._moving if one.left_bytes >= 1]
        for one in ended:
            one.sender.sending -= 1
            one.receiver.receiving -= 1
        self._share(now_s)
        for one in ended:
            one.done(now_s)
