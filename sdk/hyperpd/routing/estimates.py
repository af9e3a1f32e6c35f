"""Small estimators, fed by observations, that forget the old ones."""

from __future__ import annotations


class Mean:
    """A running mean of a start value and what was observed, over about the last `memory` observations."""

    __slots__ = ("_memory", "_seen", "value")

    def __init__(self, start: float, memory: int = 200) -> None:
        """The start value weighs as much as a tenth of the memory."""
        self.value = start
        self._memory = memory
        self._seen = memory // 10

    def observe(self, value: float) -> None:
        """Take one observation in."""
        self._seen = min(self._seen + 1, self._memory)
        self.value += (value - self.value) / self._seen


class Ratio:
    """A rate, amount per second, from amounts and the seconds they took: long ones weigh more than short ones.

    A sum of each, so that several amounts done in one go may be told one by one, the later ones with 0 s.
    """

    __slots__ = ("_amount", "_memory_s", "_seconds", "value")

    def __init__(self, start: float, memory_s: float) -> None:
        """start: amount per second, which weighs as much as a tenth of `memory_s` busy seconds."""
        self.value = start
        self._memory_s = memory_s
        self._seconds = memory_s / 10
        self._amount = start * self._seconds

    def observe(self, amount: float, seconds: float) -> None:
        """Take in that `amount` was done in `seconds`."""
        self._amount += amount
        self._seconds += seconds
        if self._seconds > self._memory_s:
            self._amount *= self._memory_s / self._seconds
            self._seconds = self._memory_s
        self.value = self._amount / self._seconds
