"""How often a file is asked whether it is still the one that was opened."""

import time
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")

SECONDS_BETWEEN = 1.0


class Watch:
    """Asks a question at most once a second, until it raises: then each time.

    A system call lets other threads run, and each return to this one costs as much as decoding a
    small picture: asked at every read, the question took a third of the speed of two threads.

    Example:
      >>> watch = Watch()
      >>> watch.ask(print, "still the same")
      still the same
      >>> watch.ask(print, "asked again")
    """

    def __init__(self) -> None:
        self._asked = float("-inf")

    def ask(self, question: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call `question` with the arguments, unless it was answered within the last second."""
        now = time.monotonic()
        if now - self._asked >= SECONDS_BETWEEN:
            question(*args, **kwargs)
            self._asked = now
