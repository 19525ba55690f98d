"""What is counted of one field."""

import collections
import dataclasses
from collections.abc import Mapping

import numpy as np

from datarax.inspection.duplicates import Duplicates, TextCounter
from datarax.inspection.look import Looked
from datarax.inspection.spread import Reservoir, Spread
from datarax.sources.fields import Field


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldSurvey:
    """A field over all records that were looked at.

    Attributes:
      name: of the field.
      kind: how it is decoded: "image".
      shape, dtype: of its array.
      present: how many records have a part for it, also one that cannot be decoded.
      cut: in how many of them that part is longer than the field.
      sizes: spreads by what they are of: "part (bytes)", "width (pixels)", "seconds".
      formats: how many parts are of which file format.
      duplicates: of a text field's texts; `None` of another.
      frequent: of the most frequent texts, how many records have it, and the text.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    present: int
    cut: int
    sizes: Mapping[str, Spread]
    formats: Mapping[str, int]
    duplicates: Duplicates | None
    frequent: tuple[tuple[int, str], ...] = ()


class FieldTally:
    """Counts one field, record by record.

    Args:
      name: of the field.
      field: what it is made of.
    """

    def __init__(self, name: str, field: Field) -> None:
        self.name = name
        self.field = field
        self._present = 0
        self._cut = 0
        self._sizes: dict[str, Reservoir] = {}
        self._formats: collections.Counter[str] = collections.Counter()
        self._texts = TextCounter()

    def add(self, looked: Looked) -> None:
        """One more record."""
        if self.name in looked.present:
            self._present += 1
            self._add_size("part (bytes)", looked.present[self.name])
        one = looked.found.get(self.name)
        if one is None or one.measured is None:
            return
        measured = one.measured
        self._cut += measured.is_cut
        for name, size in measured.sizes.items():
            self._add_size(name, size)
        if measured.format:
            self._formats[measured.format] += 1
        if measured.text is not None:
            self._texts.add(measured.text, looked.place)

    def survey(self) -> FieldSurvey:
        """Of all so far, without the frequent texts."""
        spec = self.field.decoder.spec()[0]
        spreads = {name: sizes.spread() for name, sizes in self._sizes.items()}
        return FieldSurvey(
            name=self.name,
            kind=str(self.field.options()["decode"]),
            shape=tuple(spec.shape),
            dtype=np.dtype(spec.dtype).name,
            present=self._present,
            cut=self._cut,
            sizes={name: spread for name, spread in spreads.items() if spread is not None},
            formats=dict(self._formats.most_common()),
            duplicates=self._texts.duplicates(),
        )

    def _add_size(self, name: str, size: float | None) -> None:
        if size is not None:
            self._sizes.setdefault(name, Reservoir(seed=len(self._sizes))).add(size)
