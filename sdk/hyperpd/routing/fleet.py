"""The workers of one role: who may be picked, and who of them holds how much of a prompt.

Sets of workers are bit masks in an int, so that a filter or a match costs the same for ten workers as for a thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from hyperpd.routing.worker import Worker

Filter = Literal["unhealthy", "draining", "breaker", "fingerprint"]
FILTERS: tuple[Filter, ...] = ("unhealthy", "draining", "breaker", "fingerprint")


def members(mask: int) -> Iterator[int]:
    """The indices in a mask, lowest first."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


class Fleet:
    """Workers by index. A worker that left frees its index for the next that joins."""

    def __init__(self) -> None:
        self.workers: list[Worker | None] = []
        self.present = 0
        self.named: dict[str, Worker] = {}
        self._out: dict[Filter, int] = dict.fromkeys(FILTERS, 0)
        self.allowed = 0  # present and in no filter

    def join(self, name: str, make: Callable[[str, int], Worker]) -> Worker:
        """Take a worker in, at the lowest free index. It may be picked at once."""
        if name in self.named:
            raise ValueError(f"worker {name} is in the fleet already")
        free = ~self.present
        index = (free & -free).bit_length() - 1
        worker = make(name, index)
        if index == len(self.workers):
            self.workers.append(worker)
        else:
            self.workers[index] = worker
        self.named[name] = worker
        self.present |= worker.bit
        self._sift()
        return worker

    def leave(self, worker: Worker) -> None:
        """Let a worker go. What it runs may still be booked on it; nothing else sees it any more."""
        self.workers[worker.index] = None
        del self.named[worker.name]
        self.present &= ~worker.bit
        for why in FILTERS:
            self._out[why] &= ~worker.bit
        self._sift()

    def keep_out(self, worker: Worker, why: Filter, out: bool = True) -> None:
        """Filter a worker, or no longer: nothing picks it while any filter holds."""
        self._out[why] = self._out[why] | worker.bit if out else self._out[why] & ~worker.bit
        self._sift()

    def why_out(self, worker: Worker) -> list[Filter]:
        """The filters that hold for a worker."""
        return [why for why, mask in self._out.items() if mask & worker.bit]

    def at(self, index: int) -> Worker:
        """The worker at an index of a mask."""
        worker = self.workers[index]
        assert worker is not None, index
        return worker

    def has(self, worker: Worker) -> bool:
        """Whether it has not left, even if another is at its place or has its name."""
        return self.workers[worker.index] is worker

    def _sift(self) -> None:
        out = 0
        for mask in self._out.values():
            out |= mask
        self.allowed = self.present & ~out


class Field:
    """The candidates for one leg of one request, in classes of equal cached tokens, most first.

    classes: (cached tokens, mask of workers), disjoint, together `mask`, none empty.
    """

    __slots__ = ("_fleet", "classes", "mask")

    def __init__(self, fleet: Fleet, mask: int, classes: Sequence[tuple[int, int]]) -> None:
        """classes: of the whole fleet, disjoint; workers of `mask` in none of them have nothing cached."""
        self._fleet = fleet
        self.mask = mask
        self.classes: list[tuple[int, int]] = []
        rest = mask
        for cached_tokens, holders in classes:
            if holders & rest:
                self.classes.append((cached_tokens, holders & rest))
                rest &= ~holders
        if rest:
            self.classes.append((0, rest))

    def raised(self, bit: int, cached_tokens: int) -> Field:
        """The same with one worker that has more cached, than was found, but than the best at most."""
        classes = [(cached_tokens, bit), *((cached, mask & ~bit) for cached, mask in self.classes)]
        return Field(self._fleet, self.mask, sorted(classes, reverse=True))

    def each(self) -> Iterator[tuple[Worker, int]]:
        """Every candidate with its cached tokens."""
        for cached_tokens, mask in self.classes:
            for index in members(mask):
                yield self._fleet.at(index), cached_tokens

    def workers(self, mask: int) -> Iterator[Worker]:
        """The workers of a mask."""
        return map(self._fleet.at, members(mask))

    def cached_tokens(self, worker: Worker) -> int:
        """What this candidate has cached of the prompt."""
        return next(cached for cached, mask in self.classes if mask & worker.bit)
