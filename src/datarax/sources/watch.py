"""How often a file is asked whether it is still the one that was opened."""

import time
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")

SECONDS_BETWEEN = 1.0


class Watch:
    """When a question is to be asked again: a second after a good answer, at once after a bad one.

    A system call lets other threads run, and each return to this one costs as much as decoding a
    small picture: asked at every read, the question took a third of the speed of two threads.

    Attributes:
      due: the reading of `time.monotonic` from which on it is to be asked.

    Example:
      >>> watch = Watch()
      >>> if time.monotonic() >= watch.due:
      ...     watch.ask(print, "still the same")
      still the same
      >>> time.monotonic() >= watch.due
      False
    """

    def __init__(self) -> None:
        self.due = float("-inf")

    def ask(self, question: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call `question` with the arguments; unless it raises, it is due a second from now."""
        now = time.monotonic()
        question(*args, **kwargs)
        self.due = now + SECONDS_BETWEEN
