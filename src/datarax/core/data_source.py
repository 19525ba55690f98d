"""Where records come from."""

from collections.abc import Iterator
from typing import Any

from datarax.core.element_batch import Element
from datarax.core.module import DataraxModule


class DataSourceModule(DataraxModule):
    """Random access to records: `len(source)`, `source[i]`, `source.element_spec()`.

    A record that lacks a modality lacks the key in its `data`. `element_spec` describes a record
    that has them all.
    """

    def __len__(self) -> int:
        """The number of records."""
        raise NotImplementedError(f"{type(self).__name__} must implement __len__")

    def __getitem__(self, index: int) -> Element:
        """Record `index`, the same at every call.

        Raises:
          IndexError: if there is no such record.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement __getitem__")

    def __iter__(self) -> Iterator[Element]:
        return (self[index] for index in range(len(self)))

    def element_spec(self) -> Any:
        """A tree of `jax.ShapeDtypeStruct`: every field of a record, without a batch axis."""
        raise NotImplementedError(f"{type(self).__name__} must implement element_spec")
