"""The KV cache of one worker: tokens that sequences hold, and blocks of prompts kept for the next that begins alike.

As vLLM's: blocks no sequence holds stay until memory is wanted, the least recently used go first, of one prompt its
last blocks before its first. A block is a trace's, of 512 tokens: what prompts share is known no finer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from hyperpd.plan.trace import BLOCK_TOKENS


class Cache:
    """`free_tokens` are neither held nor kept; `capacity_tokens` is what weights and activations leave."""

    __slots__ = ("_holders", "_kept", "capacity_tokens", "free_tokens")

    def __init__(self, capacity_tokens: int) -> None:
        self.capacity_tokens = capacity_tokens
        self.free_tokens = capacity_tokens
        self._holders: dict[int, int] = {}  # block → sequences that hold it
        self._kept: OrderedDict[int, None] = OrderedDict()  # held by none, least recently used first

    @property
    def room_tokens(self) -> int:
        """What could be taken: free, or kept for nobody in particular."""
        return self.free_tokens + BLOCK_TOKENS * len(self._kept)

    @property
    def held_share(self) -> float:
        """Share of the memory that sequences hold, 0 to 1: what vLLM shows as KV cache usage."""
        return 1 - self.room_tokens / self.capacity_tokens

    def match(self, blocks: Sequence[int]) -> int:
        """How many of the first `blocks` are here."""
        holders, kept = self._holders, self._kept
        for count, block in enumerate(blocks):
            if block not in holders and block not in kept:
                return count
        return len(blocks)

    def hold(self, blocks: Sequence[int]) -> None:
        """One more sequence holds these blocks, all of them here."""
        holders, kept = self._holders, self._kept
        for block in blocks:
            count = holders.get(block, 0)
            holders[block] = count + 1
            if not count:
                del kept[block]

    def take(self, tokens: int) -> None:
        """Take `tokens`, at most `room_tokens`, letting go what was kept longest."""
        while self.free_tokens < tokens:
            self._kept.popitem(last=False)
            self.free_tokens += BLOCK_TOKENS
        self.free_tokens -= tokens

    def give(self, tokens: int) -> None:
        """Give back taken tokens that are no block of a prompt."""
        self.free_tokens += tokens

    def fill(self, blocks: Sequence[int]) -> None:
        """Taken tokens have become these blocks, held by who took them; a block that is here already is shared."""
        holders, kept = self._holders, self._kept
        for block in blocks:
            count = holders.get(block, 0)
            holders[block] = count + 1
            if count:
                self.free_tokens += BLOCK_TOKENS
            elif block in kept:
                del kept[block]
                self.free_tokens += BLOCK_TOKENS

    def let_go(self, blocks: Sequence[int]) -> None:
        """One sequence less holds these blocks; those nobody holds are kept."""
        holders, kept = self._holders, self._kept
        for block in reversed(blocks):
            count = holders[block] - 1
            if count:
                holders[block] = count
            else:
                del holders[block]
                kept[block] = None
