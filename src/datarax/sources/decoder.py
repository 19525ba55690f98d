"""What a decoder of a field has to offer."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import numpy as np

from datarax.sources.limits import Limits


class Decoder(Protocol):
    """Makes one array, or one and its mask, of a part of a record. A frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def decode(self, part: Any, *, limits: Limits) -> tuple[np.ndarray, ...]:
        """Arrays as in `spec`.

        Raises:
          DecodeError: if the part cannot be decoded.
        """

    def default(self, value: Any) -> tuple[np.ndarray, ...]:
        """Arrays that stand for a configured default.

        Raises:
          DecodeError: if they cannot be made of it.
        """

    def spec(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shape and dtype of the field, and of its mask if it has one."""


@runtime_checkable
class DecodesInto(Protocol):
    """A decoder that writes where its arrays are to be, without making them first."""

    def row_writer(
        self, columns: Sequence[np.ndarray], *, limits: Limits
    ) -> Callable[[int, Any], None]:
        """A function of a row and a part that writes all of what `decode` gives of it.

        Into that row of the arrays, C-contiguous, of the shapes of `spec` behind their first axis.
        It raises DecodeError as `decode`; the row holds anything then.
        """


def flat_bytes(column: np.ndarray) -> memoryview:
    """The memory of an array of single bytes.

    Raises:
      ValueError: if it is not C-contiguous, or its items have several bytes.
    """
    if not column.flags.c_contiguous or column.itemsize != 1:
        raise ValueError(
            "expected a C-contiguous array of uint8 or bool, got "
            f"{column.dtype}{list(column.shape)} with strides {column.strides}"
        )
    return column.reshape(-1).view(np.uint8).data
