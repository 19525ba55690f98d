"""Operators made of operators."""

from collections.abc import Sequence
from typing import Any

from flax import nnx

from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule


class Sequential(OperatorModule):
    """One operator after another, as one compiled call.

    The operators keep their own statistics, counters and generators; as those may change in a call,
    a sequence is never served from a cache, nor are its operators within it.

    Args:
      operators: at least one; each sees what the ones before it wrote.
      name: a name for messages and reports.

    Raises:
      ValueError: for no operators.
      TypeError: for a part that is no operator.
    """

    def __init__(self, operators: Sequence[OperatorModule], *, name: str | None = None) -> None:
        super().__init__(OperatorConfig(), name=name)
        if not operators:
            raise ValueError("Sequential needs at least one operator")
        for part in operators:
            if not isinstance(part, OperatorModule):
                raise TypeError(f"Sequential takes operators, got {type(part).__name__}")
        self.operators = nnx.List(operators)

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        """Process a batch with each operator in turn; `stats`, if given, goes to all of them."""
        for part in self.operators:
            batch = part(batch, stats)
        return batch

    @property
    def masks_rows_itself(self) -> bool:
        """True: each operator masks what it writes."""
        return True

    def output_spec(self, input_spec: Any) -> Any:
        """The last operator's spec of what the ones before it make."""
        for part in self.operators:
            input_spec = part.output_spec(input_spec)
        return input_spec
