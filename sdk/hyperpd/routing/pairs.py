"""Ways for KV from prefill to decode workers: which are open, and how fast each is."""

from __future__ import annotations

from hyperpd.routing.estimates import Ratio
from hyperpd.routing.worker import Worker

_MEMORY_S = 2.0  # seconds of moving after which what was seen before is forgotten
_STALE_S = 60.0  # a pair that was not measured for so long is held to be as fast as it was calibrated


class Pairs:
    """Only a proven pair is open: its bandwidth is 0 until then, so nothing is ever sent through it."""

    def __init__(self, bytes_per_s: float) -> None:
        """bytes_per_s: of a proven pair that has moved nothing yet."""
        self._start = bytes_per_s
        self._open: dict[Worker, int] = {}  # decode worker → mask of prefill workers
        self._speeds: dict[tuple[Worker, Worker], tuple[Ratio, float]] = {}  # with the time of the last

    def prove(self, prefill: Worker, decode: Worker) -> None:
        """A probe came through."""
        self._open[decode] = self._open.get(decode, 0) | prefill.bit

    def doubt(self, prefill: Worker, decode: Worker) -> None:
        """The breaker opened, or the fingerprints differ. What is known of the speed stays."""
        self._open[decode] = self._open.get(decode, 0) & ~prefill.bit

    def open_to(self, decode: Worker) -> int:
        """Mask of the prefill workers whose KV reaches `decode`."""
        return self._open.get(decode, 0)

    def bytes_per_s(self, prefill: Worker, decode: Worker, now_s: float) -> float:
        """What the pair moves; 0 where it is not open."""
        if not self.open_to(decode) & prefill.bit:
            return 0.0
        speed, last_s = self._speeds.get((prefill, decode), (None, 0.0))
        return speed.value if speed and now_s - last_s <= _STALE_S else self._start

    def moved(self, prefill: Worker, decode: Worker, moved_bytes: float, seconds: float, now_s: float) -> None:
        """Learn from a transfer of so many bytes that took so long, waiting not included."""
        speed, last_s = self._speeds.get((prefill, decode), (None, 0.0))
        if not speed or now_s - last_s > _STALE_S:
            speed = Ratio(self._start, _MEMORY_S)
        speed.observe(moved_bytes, seconds)
        self._speeds[prefill, decode] = speed, now_s

    def forget_prefill(self, worker: Worker) -> None:
        """A prefill worker has left: its bit may become another's."""
        for decode in self._open:
            self._open[decode] &= ~worker.bit
        self._forget(worker)

    def forget_decode(self, worker: Worker) -> None:
        """A decode worker has left. Its bit is no prefill worker's, though it may be the same."""
        self._open.pop(worker, None)
        self._forget(worker)

    def _forget(self, worker: Worker) -> None:
        self._speeds = {pair: speed for pair, speed in self._speeds.items() if worker not in pair}
