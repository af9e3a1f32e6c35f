"""Which worker has which prefix cached, known from its engine's KV events.

Events come in numbered batches, and hold token ids: our own cheap hashes are computed from them, and the engine's are
kept only to find what it removes. What a worker holds is exact while no batch is missed; after a gap it is stale,
matched as far as it is known, and whoever reads the events asks the engine to replay from `wanted`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hyperpd.routing.blocks import chain


@dataclass(frozen=True, slots=True)
class BlockStored:
    """Blocks that follow `parent` (the engine's hash; None: a prompt's start) are in the cache now.

    hashes: the engine's, one for each block; tokens: of all of them, one after the other. salt: what else they depend
    on, as a number: an adapter, a tenant. Only of a group that attends to everything: of a sliding window blocks are
    missing at a prompt's start.
    """

    hashes: Sequence[int | bytes]
    parent: int | bytes | None
    tokens: Sequence[int]
    block_tokens: int
    salt: int = 0


@dataclass(frozen=True, slots=True)
class BlockRemoved:
    """Blocks are no longer in the cache.

    Where two requests computed the same at once, a copy may be left, and the view says less than there is: copies
    cannot be counted, since vLLM's full reports tell reused blocks like new ones.
    """

    hashes: Sequence[int | bytes]


@dataclass(frozen=True, slots=True)
class AllBlocksCleared:
    """The cache is empty."""


Event = BlockStored | BlockRemoved | AllBlocksCleared
Outcome = Literal["applied", "known", "stale"]


class _Cache:
    """One engine's. ours: its hashes → ours."""

    __slots__ = ("last_s", "newest", "ours", "wanted")

    def __init__(self) -> None:
        self.ours: dict[int | bytes, int] = {}
        self.wanted = 0  # number of the next batch
        self.newest = -1  # the highest number that came
        self.last_s = 0.0


class EventView:
    """View of what engines say of themselves; what is sent to them changes nothing."""

    def __init__(self) -> None:
        self._caches: dict[int, _Cache] = {}
        self._holders: dict[int, int] = {}  # our hash → mask of workers

    def join(self, index: int, capacity_blocks: int) -> None:
        """A worker of which nothing is known yet. Its cache's size is its engine's own matter."""
        self._caches[index] = _Cache()

    def leave(self, index: int) -> None:
        """A worker has gone."""
        self._empty(index, self._caches.pop(index))

    def empty(self, index: int) -> None:
        """What a worker had is of no use any more; what it says from here on is."""
        self._empty(index, self._caches[index])

    def resize(self, index: int, capacity_blocks: int) -> None:
        """Nothing: what it holds, its engine says."""

    def blocks_held(self, index: int) -> int:
        """How many blocks a worker has."""
        return len(self._caches[index].ours)

    def sent(self, index: int, blocks: Sequence[int], now_s: float) -> None:
        """Nothing: its engine will say so."""

    def reached(self, index: int) -> int:
        """The number of the batch that is to come next."""
        return self._caches[index].wanted

    def wanted(self, index: int) -> int | None:
        """The number of the batch to replay from, where some were missed; else None."""
        cache = self._caches[index]
        return cache.wanted if cache.newest >= cache.wanted else None

    def apply(self, index: int, number: int, at_s: float, events: Sequence[Event]) -> Outcome:
        """Take a batch in, by its number and the engine's time of it.

        applied: it was the next one. known: it had come before, as a replay's may. stale: batches before it are
        missing, so it was not taken in: ask for a replay from `wanted`. A lower number at a later time is an engine
        that began anew: what its predecessor held is dropped.
        """
        cache = self._caches[index]
        if number < cache.wanted:
            if at_s <= cache.last_s:
                return "known"
            self._empty(index, cache)
            cache.wanted, cache.newest = 0, -1
        cache.newest = max(cache.newest, number)
        if number > cache.wanted:
            return "stale"
        for event in events:
            self._take(index, cache, event)
        cache.wanted += 1
        cache.last_s = at_s
        return "applied"

    def lost(self, index: int, first: int) -> None:
        """The engine can replay from `first` on only, which is after `wanted`: removals are lost, so all is dropped."""
        cache = self._caches[index]
        self._empty(index, cache)
        cache.wanted = first

    def match(self, blocks: Sequence[int], now_s: float) -> list[tuple[int, int]]:
        """(blocks held, mask of the workers that hold just so many), most first, disjoint, without those with none.

        Who holds a block holds all before it: engines evict a prompt's last blocks first. So the ends are found by
        halving.
        """
        holders = self._holders
        classes: list[tuple[int, int]] = []
        low, seen = len(blocks), 0
        while low:
            low, bound, mask = 0, low + 1, 0
            while bound - low > 1:
                middle = (low + bound) // 2
                found = holders.get(blocks[middle - 1], 0) & ~seen
                if found:
                    low, mask = middle, found
                else:
                    bound = middle
            if mask:
                classes.append((low, mask))
                seen |= mask
                low -= 1
        return classes

    def _take(self, index: int, cache: _Cache, event: Event) -> None:
        bit = 1 << index
        if isinstance(event, AllBlocksCleared):
            self._empty(index, cache)
        elif isinstance(event, BlockRemoved):
            for theirs in event.hashes:
                self._drop(cache.ours.pop(theirs, None), bit)
        else:
            parent = event.salt if event.parent is None else cache.ours.get(event.parent)
            if parent is None:  # it follows what we missed before we listened: of no use, since no prompt's start
                return
            ours = chain(event.tokens, event.block_tokens, parent)
            for theirs, block in zip(event.hashes, ours, strict=True):
                cache.ours[theirs] = block
                self._holders[block] = self._holders.get(block, 0) | bit

    def _drop(self, block: int | None, bit: int) -> None:
        if block is None:
            return
        left = self._holders.get(block, 0) & ~bit  # two of the engine's may be one of ours
        if left:
            self._holders[block] = left
        else:
            self._holders.pop(block, None)

    def _empty(self, index: int, cache: _Cache) -> None:
        for block in cache.ours.values():
            self._drop(block, 1 << index)
        cache.ours.clear()
