"""Which worker holds which prefix, guessed from what was sent to it, or moved: bounded, LRU and TTL for each worker.

One tree for all workers. A node is a run of blocks that were always sent together, with the mask of the workers that
hold it, so a match costs a step per run, whatever the number of workers. Blocks leave a worker as an engine's do: least
recently used first, and of one prompt the last block first, so what a worker holds always begins at a prompt's start.
"""

from __future__ import annotations

import heapq
import itertools
from array import array
from collections.abc import Iterator, Sequence
from typing import Protocol


class View(Protocol):
    """What is known of the workers' prefix caches. Workers are indices of one fleet."""

    def match(self, blocks: Sequence[int], now_s: float) -> list[tuple[int, int]]:
        """(blocks held, mask of the workers that hold just so many), most first, disjoint, without those with none."""

    def sent(self, index: int, blocks: Sequence[int], now_s: float) -> None:
        """A worker will hold these, from a prompt's start on. `now_s` never goes back."""

    def join(self, index: int, capacity_blocks: int) -> None:
        """A worker with an empty cache of this size."""

    def leave(self, index: int) -> None:
        """A worker has gone."""

    def empty(self, index: int) -> None:
        """What a worker had is of no use any more."""

    def resize(self, index: int, capacity_blocks: int) -> None:
        """Its cache is of this size."""


class _Run:
    """Blocks that follow each other. holds: who holds all of them, by the worker's index; holders: the same as mask."""

    __slots__ = ("after", "before", "blocks", "holders", "holds")

    def __init__(self, before: _Run | None, blocks: array[int]) -> None:
        self.before = before
        self.blocks = blocks
        self.after: dict[int, _Run] | None = None  # by the first block
        self.holders = 0
        self.holds: dict[int, _Hold] = {}


class _Hold:
    """A run in one worker's cache; a link of that worker's list, oldest to newest."""

    __slots__ = ("last_s", "newer", "older", "run")

    def __init__(self, run: _Run, last_s: float) -> None:
        self.run = run
        self.last_s = last_s
        self.older = self.newer = self

    def link(self, newer: _Hold) -> None:
        """Put it into a list, just before `newer`."""
        self.newer, self.older = newer, newer.older
        self.older.newer = newer.older = self

    def unlink(self) -> None:
        """Take it out of its list."""
        self.older.newer, self.newer.older = self.newer, self.older


class _Shelf:
    """One worker's cache: its holds as a ring through `end`, whose newer is the oldest."""

    __slots__ = ("blocks", "capacity_blocks", "end", "number", "queued")

    def __init__(self, root: _Run, capacity_blocks: int, number: int) -> None:
        self.number = number  # never another's, while an index may be the next worker's
        self.capacity_blocks = capacity_blocks
        self.blocks = 0
        self.end = _Hold(root, 0.0)
        self.queued = False  # for expiry


class PrefixView:
    """View of what was sent. See the module's docstring."""

    def __init__(self, ttl_s: float) -> None:
        """ttl_s: what was not used for so long is held to be gone."""
        self._ttl_s = ttl_s
        self._root = _Run(None, array("q"))
        self._shelves: dict[int, _Shelf] = {}
        self._numbers = itertools.count()
        self._expiry: list[tuple[float, int, int]] = []  # heap of (no later than the oldest hold, worker, its shelf)

    def join(self, index: int, capacity_blocks: int) -> None:
        """A worker with an empty cache of this size."""
        self._shelves[index] = _Shelf(self._root, capacity_blocks, next(self._numbers))

    def leave(self, index: int) -> None:
        """A worker has gone."""
        self.empty(index)
        del self._shelves[index]

    def empty(self, index: int) -> None:
        """What a worker had is of no use any more."""
        shelf = self._shelves[index]
        while shelf.blocks:
            self._drop(index, shelf, shelf.end.newer)

    def resize(self, index: int, capacity_blocks: int) -> None:
        """Its cache is of this size."""
        shelf = self._shelves[index]
        shelf.capacity_blocks = capacity_blocks
        while shelf.blocks > shelf.capacity_blocks:
            self._evict(index, shelf)

    def blocks_held(self, index: int) -> int:
        """How many blocks a worker is held to have."""
        return self._shelves[index].blocks

    def match(self, blocks: Sequence[int], now_s: float) -> list[tuple[int, int]]:
        """(blocks held, mask of the workers that hold just so many), most first, disjoint, without those with none."""
        self._expire(now_s)
        found = [(depth, run.holders) for run, depth in self._walk(blocks)]
        classes = []
        deeper = 0
        for depth, holders in reversed(found):
            if holders != deeper:
                classes.append((depth, holders & ~deeper))
                deeper = holders
        return classes

    def sent(self, index: int, blocks: Sequence[int], now_s: float) -> None:
        """A worker will hold these, from a prompt's start on. `now_s` never goes back."""
        shelf = self._shelves[index]
        blocks = blocks[: shelf.capacity_blocks]
        path = []
        depth = 0
        for run, reached in self._walk(blocks):
            if reached - depth < len(run.blocks):
                run = self._split(run, reached - depth)
            path.append(run)
            depth = reached
        if depth < len(blocks):
            path.append(self._grow(path[-1] if path else self._root, array("q", blocks[depth:])))
        for run in reversed(path):  # what comes first is used last, so it leaves last
            hold = run.holds.get(index)
            if hold:
                hold.unlink()
                hold.last_s = now_s
            else:
                hold = run.holds[index] = _Hold(run, now_s)
                run.holders |= 1 << index
                shelf.blocks += len(run.blocks)
            hold.link(shelf.end)
        while shelf.blocks > shelf.capacity_blocks:
            self._evict(index, shelf)
        if not shelf.queued:
            shelf.queued = True
            heapq.heappush(self._expiry, (shelf.end.newer.last_s, index, shelf.number))

    def _walk(self, blocks: Sequence[int]) -> Iterator[tuple[_Run, int]]:
        """The runs that a chain goes through, each with the depth to which it follows it."""
        run, depth, length = self._root, 0, len(blocks)
        while depth < length and run.after:
            found = run.after.get(blocks[depth])
            if not found:
                return
            run = found
            theirs = run.blocks
            # Equal hashes have equal pasts, so what two chains share is one stretch: find its end by halving.
            same, bound = 1, min(len(theirs), length - depth)
            if theirs[bound - 1] == blocks[depth + bound - 1]:
                same = bound
            while bound - same > 1:
                middle = (same + bound) // 2
                if theirs[middle - 1] == blocks[depth + middle - 1]:
                    same = middle
                else:
                    bound = middle
            depth += same
            yield run, depth
            if same < len(theirs):
                return

    @staticmethod
    def _grow(before: _Run, blocks: array[int]) -> _Run:
        run = _Run(before, blocks)
        if before.after is None:
            before.after = {}
        before.after[blocks[0]] = run
        return run

    def _split(self, run: _Run, at: int) -> _Run:
        """Cut a run in two at a block; what is before keeps the identity, and is returned."""
        after = run.after
        rest = _Run(run, run.blocks[at:])
        run.blocks = run.blocks[:at]
        run.after = {rest.blocks[0]: rest}
        rest.after = after
        for follower in (after or {}).values():
            follower.before = rest
        rest.holders = run.holders
        for index, hold in run.holds.items():
            cut = rest.holds[index] = _Hold(rest, hold.last_s)
            cut.link(hold)
        return run

    def _evict(self, index: int, shelf: _Shelf) -> None:
        """Make room: the oldest run, or as much of its end as it takes."""
        oldest = shelf.end.newer
        keep = len(oldest.run.blocks) - (shelf.blocks - shelf.capacity_blocks)
        if keep > 0:
            self._split(oldest.run, keep)
            oldest = oldest.older
        self._drop(index, shelf, oldest)

    @staticmethod
    def _drop(index: int, shelf: _Shelf, hold: _Hold) -> None:
        run = hold.run
        hold.unlink()
        del run.holds[index]
        run.holders &= ~(1 << index)
        shelf.blocks -= len(run.blocks)
        if not run.holders and run.before:
            siblings = run.before.after
            assert siblings is not None
            del siblings[run.blocks[0]]
            if not siblings:
                run.before.after = None

    def _expire(self, now_s: float) -> None:
        before_s = now_s - self._ttl_s
        while self._expiry and self._expiry[0][0] < before_s:
            _, index, number = heapq.heappop(self._expiry)
            shelf = self._shelves.get(index)
            if not shelf or shelf.number != number:  # its worker has left
                continue
            while shelf.blocks and shelf.end.newer.last_s < before_s:
                self._drop(index, shelf, shelf.end.newer)
            shelf.queued = bool(shelf.blocks)
            if shelf.queued:
                heapq.heappush(self._expiry, (shelf.end.newer.last_s, index, shelf.number))
