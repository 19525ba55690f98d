"""How numbers are spread, in one pass and little memory."""

import dataclasses
import random

KEPT = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """Of some numbers.

    Attributes:
      low, high: the least and the greatest, of all.
      median: the lower of the two in the middle; of a sample of 4096 where there are more.
      count: how many there are.
    """

    low: float
    median: float
    high: float
    count: int

    @property
    def is_sampled(self) -> bool:
        """Whether the median is that of a sample."""
        return self.count > KEPT


class Reservoir:
    """Takes numbers one by one; 4096 of them are kept, each as likely as another.

    Args:
      seed: of what is kept; the same numbers in the same order give the same spread.

    Example:
      >>> numbers = Reservoir(seed=0)
      >>> for number in (5, 1, 3):
      ...     numbers.add(number)
      >>> numbers.spread()
      Spread(low=1, median=3, high=5, count=3)
    """

    def __init__(self, *, seed: int) -> None:
        self._random = random.Random(seed)
        self._kept: list[float] = []
        self._low = float("inf")
        self._high = float("-inf")
        self._count = 0

    def add(self, number: float) -> None:
        """One more."""
        self._count += 1
        self._low = min(self._low, number)
        self._high = max(self._high, number)
        if len(self._kept) < KEPT:
            self._kept.append(number)
        elif (place := self._random.randrange(self._count)) < KEPT:
            self._kept[place] = number

    def spread(self) -> Spread | None:
        """Of all so far; `None` of no numbers."""
        if not self._kept:
            return None
        median = sorted(self._kept)[(len(self._kept) - 1) // 2]
        return Spread(low=self._low, median=median, high=self._high, count=self._count)
