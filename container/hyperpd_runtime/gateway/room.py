"""How many handoffs one decode worker has room for, so that no ticket grows old waiting for it. No I/O."""

from __future__ import annotations

import asyncio
from collections import deque

ENGINE_SEQUENCES = 1024  # vLLM's largest default of max-num-seqs
_AHEAD = 4  # a quarter more than decode runs at once may be prefilled, so that its places do not stay empty


class Room:
    """Places for requests that come with a ticket; a place is held from before the prefill to the end of the decode.

    A sequence that decode cannot run would only pin prefill's blocks. There are as many places as decode runs
    sequences, and some more. Every handoff that decode did not begin within its lease halves them, down to one;
    every one that it began in time gives one back.
    """

    def __init__(self, sequences: int) -> None:
        self.most = self.places = sequences + max(1, sequences // _AHEAD)
        self.taken = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def take(self, count: int = 1) -> None:
        """Return when there are so many places, all at once; first come, first served."""
        if not self._waiting and self._fits(count):
            self.taken += count
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, count))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had its places already
                self.taken -= count
            elif (turn, count) in self._waiting:
                self._waiting.remove((turn, count))
            self._call()
            raise

    def keep(self) -> None:
        """Take a place for what goes on when its request has ended, also where there is none."""
        self.taken += 1

    def leave(self) -> None:
        """Give one place back."""
        self.taken -= 1
        self._call()

    def in_time(self) -> None:
        """Decode began a handoff within its lease."""
        self.places = min(self.places + 1, self.most)
        self._call()

    def late(self) -> None:
        """It did not."""
        self.places = max(self.places // 2, 1)

    def _fits(self, count: int) -> bool:
        return self.taken + count <= self.places or not self.taken  # places may have gone since it came

    def _call(self) -> None:
        while self._waiting and self._fits(self._waiting[0][1]):
            turn, count = self._waiting.popleft()
            if not turn.done():  # else who waited is leaving, and has not been told yet
                self.taken += count
                turn.set_result(None)
