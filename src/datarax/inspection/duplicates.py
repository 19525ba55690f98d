"""Which texts several records share."""

import array
import dataclasses
import hashlib

import numpy as np

MOST = 2**20
FREQUENT = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Of the texts of a field.

    Attributes:
      texts: how many were compared: all, or the first 2^20.
      different: how many of these differ.
      sharing: how many records have a text that another has too.
      frequent: how many records have it, and where the first of them is: of the most frequent
        three that several have.
      is_sample: whether there are more than were compared.
    """

    texts: int
    different: int
    sharing: int
    frequent: tuple[tuple[int, int], ...]
    is_sample: bool


class TextCounter:
    """Counts texts by 8 bytes of their hash: 16 MiB at most.

    Example:
      >>> counter = TextCounter()
      >>> for place, text in enumerate(["a cat", "a dog", "a cat"]):
      ...     counter.add(text, place)
      >>> found = counter.duplicates()
      >>> found.different, found.sharing, found.frequent
      (2, 2, ((2, 0),))
    """

    def __init__(self) -> None:
        self._hashes = array.array("Q")
        self._places = array.array("Q")
        self._is_full = False

    def add(self, text: str, place: int) -> None:
        """The text of the record at `place`."""
        if len(self._hashes) == MOST:
            self._is_full = True
            return
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self._hashes.append(int.from_bytes(digest, "little"))
        self._places.append(place)

    def duplicates(self) -> Duplicates | None:
        """Of all so far; `None` of no texts."""
        if not self._hashes:
            return None
        hashes = np.frombuffer(self._hashes, np.uint64)
        _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
        order = np.lexsort((first, -counts))[:FREQUENT]
        return Duplicates(
            texts=len(hashes),
            different=len(counts),
            sharing=int(counts[counts > 1].sum()),
            frequent=tuple(
                (int(counts[i]), self._places[int(first[i])]) for i in order if counts[i] > 1
            ),
            is_sample=self._is_full,
        )
