"""Workers by a rank, kept in order while ranks change: the best of a thousand without looking at all."""

from __future__ import annotations

from bisect import bisect_left, insort

from hyperpd.routing.worker import Worker

Place = tuple[float, int, int]  # rank, turn of the last pick, index


class Order:
    """Lowest rank first; of equal ones, whoever was picked longest ago."""

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._of: dict[int, tuple[Place, Worker]] = {}

    def put(self, worker: Worker, rank: float) -> None:
        """A worker's rank is this now."""
        place = rank, worker.picked, worker.index
        before = self._of.get(worker.index)
        if before:
            if before[0] == place:
                return
            del self._places[bisect_left(self._places, before[0])]
        insort(self._places, place)
        self._of[worker.index] = place, worker

    def drop(self, worker: Worker) -> None:
        """A worker has left."""
        place, _ = self._of.pop(worker.index)
        del self._places[bisect_left(self._places, place)]

    def first(self, mask: int, most: int) -> list[Worker]:
        """The first of a mask, `most` of them or all there are."""
        of = self._of
        found = []
        left = min(most, mask.bit_count())
        if left == mask.bit_count():  # few of many: no search through the others
            while mask:
                index = mask.bit_length() - 1
                found.append(of[index][1])
                mask ^= 1 << index
            return sorted(found, key=lambda worker: of[worker.index][0])
        for _, _, index in self._places:
            if mask >> index & 1:
                found.append(of[index][1])
                left -= 1
                if not left:
                    break
        return found

    def last(self, mask: int, most: int) -> list[Worker]:
        """The last of a mask, at most so many, the very last first."""
        found: list[Worker] = []
        for place in reversed(self._places):
            if len(found) == most:
                break
            if mask >> place[2] & 1:
                found.append(self._of[place[2]][1])
        return found
