"""What a row of the table is: how to make an operator, what it reads, what it must write."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from datarax.core import Batch, CrossModalOperatorConfig, OperatorModule

ROWS = 6


@dataclass(frozen=True)
class Row:
    """An operator and its data.

    Attributes:
      make: the operator with fresh parameters.
      shapes: of one record's input fields.
      out: the output field, and its shape in a record.
      absent_ok: a record without one field is processed all the same.
      relates_rows: a record's result depends on the others.
      kinds: fields that are no normal numbers: "ids" (integers below 9), "mask" (True and then
        False) or "unit" (numbers in [0.2, 0.6]).
      changes: fields of its config and another value of each, which must show: in the output, in
        the parameters, or as an error.
      reads: further fields that the operator reads (ids, masks), of a generator and the number of
        rows; `None`: none.
      fills: it writes where a field, or all of them, is absent.
    """

    make: Callable[[], OperatorModule]
    shapes: dict[str, tuple[int, ...]]
    out: tuple[str, tuple[int, ...]]
    absent_ok: bool = False
    relates_rows: bool = False
    kinds: dict[str, str] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    reads: Callable[[np.random.Generator, int], dict[str, jax.Array]] | None = None
    fills: bool = False


PAIR = {"a": (4,), "b": (4,)}
MIXED = {"a": (4,), "b": (3,), "c": (5,)}


def plain(kind, inputs, out, **options):
    config = CrossModalOperatorConfig(input_fields=inputs, output_fields=[out], **options)
    return lambda: kind(config, rngs=nnx.Rngs(0, noise=1))


def batch_of(row: Row, seed: int = 0, rows: int = ROWS, dtype=jnp.float32, **parts) -> Batch:
    """Random records for an operator of the table."""
    rng = np.random.default_rng(seed)
    data = {
        name: _values(rng, row.kinds.get(name), (rows, *shape), dtype)
        for name, shape in row.shapes.items()
    }
    if "context" in data:
        data["keep"] = jnp.asarray(rng.random((rows, 4)) < 0.7).at[:, 0].set(True)
    if row.reads is not None:
        data |= row.reads(rng, rows)
    index = jnp.arange(rows, dtype=jnp.uint32)
    return Batch.from_parts(data, **({"record_index": index} | parts))


def _values(rng, kind, shape, dtype):
    if kind == "ids":
        return jnp.asarray(rng.integers(0, 9, shape), jnp.int32)
    if kind == "mask":
        lengths = rng.integers(1, shape[-1] + 1, (*shape[:-1], 1))
        return jnp.asarray(np.arange(shape[-1]) < lengths)
    return jnp.asarray(rng.uniform(0.2, 0.6, shape) if kind else rng.normal(size=shape), dtype)


def floats(batch: Batch) -> dict[str, jax.Array]:
    """The fields that have gradients."""
    return {n: x for n, x in batch.data.items() if jnp.issubdtype(x.dtype, jnp.floating)}
