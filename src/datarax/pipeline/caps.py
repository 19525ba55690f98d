"""How many bad records a run may meet before it stops."""

import collections
import dataclasses
import math

from datarax.sources.record import Fault

_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ErrorCaps:
    """What is beyond one of these stops the run: the data, or its description, is wrong.

    Attributes:
      fraction: of the last `window` records that may be bad, in [0, 1]; 1 is no cap.
      window: records that the fraction is of.
      consecutive: bad records in a row that are too many; `None` is no cap.

    Raises:
      ValueError: if one is out of range.
    """

    fraction: float = 0.1
    window: int = 1000
    consecutive: int | None = 100

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"fraction must be in [0, 1], got {self.fraction}")
        if self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")
        if self.consecutive is not None and self.consecutive < 1:
            raise ValueError(f"consecutive must be at least 1 or None, got {self.consecutive}")


class TooManyErrors(RuntimeError):
    """A cap on bad records is exceeded; the message is the summary."""


class ErrorCounter:
    """Counts good and bad records as they come.

    Args:
      caps: when to stop.

    Example:
      >>> counter = ErrorCounter(ErrorCaps(consecutive=2))
      >>> counter.add(Fault("a.tar"))
      >>> counter.add(None)
      >>> counter.add(Fault("a.tar"))
      >>> counter.bad, counter.seen, counter.run
      (2, 3, 1)
    """

    def __init__(self, caps: ErrorCaps) -> None:
        self.caps = caps
        self.seen = 0
        self.bad = 0
        self.run = 0
        self._recent: collections.deque[int] = collections.deque()  # when the bad ones were
        self._last: collections.deque[Fault] = collections.deque(maxlen=_SHOWN)

    def add(self, fault: Fault | None) -> None:
        """Count one record; `None` is a good one.

        Raises:
          TooManyErrors: if it is one too many.
        """
        self.seen += 1
        if fault is None:
            self.run = 0
            return
        self.bad += 1
        self.run += 1
        self._last.append(fault)
        self._recent.append(self.seen)
        while self._recent[0] <= self.seen - self.caps.window:
            self._recent.popleft()
        allowed = math.floor(self.caps.fraction * self.caps.window + 1e-6)  # 0.29 * 100 < 29
        if len(self._recent) > allowed:
            among = min(self.caps.window, self.seen)
            raise self._summary(
                f"{len(self._recent)} of the last {among} records are bad, "
                f"at most {allowed} may be (a fraction of {self.caps.fraction} in a window of "
                f"{self.caps.window})"
            )
        if self.caps.consecutive is not None and self.run >= self.caps.consecutive:
            raise self._summary(f"{self.run} records in a row are bad")

    def add_good(self, count: int) -> None:
        """Count records that are all good."""
        if count:
            self.seen += count
            self.run = 0

    def _summary(self, why: str) -> TooManyErrors:
        last = "".join(f"\n  - {fault}" for fault in self._last)
        fields = dict.fromkeys(fault.field for fault in self._last if fault.field)
        lacking = f'give a field that records may lack ({", ".join(fields)}) missing = "mask"; '
        return TooManyErrors(
            f"{why}; {self.bad} bad of {self.seen} read so far. The last:{last}\n"
            f'{lacking if fields else ""}mend the data or what its fields say (on_error = "raise" '
            "stops at the first bad record), or set other error_caps (of a run error_fraction, 1 "
            "being no cap, and error_run)"
        )
