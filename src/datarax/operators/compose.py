"""Operators made of operators."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.masks import leaf_path, paths, select, zero_skipped
from datarax.core.operator import OperatorModule
from datarax.core.spec import spec_of
from datarax.operators.checks import check_number


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
        _check_parts("Sequential", operators)
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


class Identity(OperatorModule):
    """Hands every record through as it is: the choice of `OneOf` that changes nothing."""

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(OperatorConfig(), name=name)

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """The record itself."""
        return data, state, metadata


class OneOf(OperatorModule):
    """One of several operators for each record, drawn for that record; the first in `op.eval()`.

    All of them are computed, each on the records that drew it: to the others it sees zeros and has
    gradient exactly 0, and its counters count its own records. As the operators are in `op.eval()`
    themselves then, a stochastic first one, or `Identity()`, changes nothing there.

    Args:
      operators: at least one, each of single records; all leave the same fields, with one shape and
        dtype. `Identity()` may be among them.
      probabilities: one for each, with sum 1; `None` makes them all alike.
      stream_name: the RNG stream to draw from.
      rngs: random number generators, with that stream or a default one.
      name: a name for messages and reports.

    Raises:
      ValueError: for no operators, one that relates rows, probabilities that are none, or no
        `rngs`; in a call, if the operators leave different fields, shapes or dtypes.
      TypeError: for a part that is no operator.
    """

    def __init__(
        self,
        operators: Sequence[OperatorModule],
        probabilities: Sequence[float] | None = None,
        *,
        stream_name: str = "augmentation",
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        config = OperatorConfig(stochastic=True, stream_name=stream_name)
        super().__init__(config, rngs=rngs, name=name)
        _check_parts("OneOf", operators)
        for part in operators:
            if part.overrides_apply_batch and not part.masks_rows_itself:
                raise ValueError(
                    f"OneOf chooses for single records, {type(part).__name__} relates rows"
                )
        _check_probabilities(probabilities, len(operators))
        self.operators = nnx.List(operators)
        shares = [1 / len(operators)] * len(operators) if probabilities is None else probabilities
        self.probabilities = nnx.static(tuple(shares))

    def generate_random_params(self, rng: Array, data_shapes: Any) -> Array:
        """Which operator: int32 `[B]`."""
        rows = jax.tree.leaves(data_shapes, is_leaf=lambda x: isinstance(x, tuple))[0][0]
        draws = jax.random.uniform(rng, (rows,))
        bounds = jnp.asarray(np.cumsum(self.probabilities)[:-1], draws.dtype)
        return jnp.sum(draws[:, None] >= bounds[None, :], axis=1, dtype=jnp.int32)

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        """Process each record by the operator that it drew; `stats`, if given, goes to all."""
        chosen = self.draw(batch)
        if chosen is None:
            return self.operators[0](batch, stats)
        rows = [chosen == place for place in range(len(self.operators))]
        valid = batch.valid_mask
        outs = []
        for mine, part in zip(rows, self.operators, strict=True):
            outs.append(
                part(batch.replace(valid_mask=mine if valid is None else valid & mine), stats)
            )
        self._check_alike(outs)
        return _merged(batch, rows, outs)

    @property
    def masks_rows_itself(self) -> bool:
        """True: each operator masks what it writes."""
        return True

    def _check_alike(self, outs: list[Batch]) -> None:
        first = spec_of((outs[0].data, outs[0].states))
        for place, out in enumerate(outs[1:], 1):
            if (other := spec_of((out.data, out.states))) != first:
                kinds = [type(self.operators[i]).__name__ for i in (0, place)]
                raise ValueError(
                    "the operators of OneOf must leave the same fields, shapes and dtypes: "
                    f"operators[0] ({kinds[0]}) leaves {_difference(first, other)}, "
                    f"operators[{place}] ({kinds[1]}) {_difference(other, first)}"
                )


def _merged(batch: Batch, rows: Sequence[Array], outs: Sequence[Batch]) -> Batch:
    """In each row what its operator left; what one wrote and another did not is masked there too.

    Args:
      batch: what all of them got, but for the valid rows.
      rows: for each operator the rows that drew it.
      outs: what each of them left.
    """
    before, clean = paths(batch.data), paths(zero_skipped(batch, batch.where()).data)
    written: list[str] = []

    def leaf(path: Any, *leaves: Any) -> Any:
        key = leaf_path(path)
        own = before.get(key)
        if all(x is own for x in leaves):
            return own
        written.append(".".join(key))
        return _pick(rows, [clean[key] if x is own else x for x in leaves])

    data = jax.tree_util.tree_map_with_path(leaf, *[out.data for out in outs])
    states = jax.tree.map(lambda *leaves: _pick(rows, leaves), *[out.states for out in outs])
    presence = dict(outs[0].presence)
    true = jnp.ones(batch.batch_size, bool)
    for name in dict.fromkeys(name for out in outs for name in out.presence):
        held = batch.where(name) if name in written else batch.presence.get(name)
        there = [
            out.presence[name] if out.presence.get(name) is not batch.presence.get(name) else held
            for out in outs
        ]
        presence[name] = _pick(rows, [true if mask is None else mask for mask in there])
    return batch.replace(data=data, states=states, presence=presence)


def _pick(rows: Sequence[Array], leaves: Sequence[Any]) -> Any:
    """In each row the value of the operator that it drew."""
    picked = leaves[0]
    for mine, leaf in zip(rows[1:], leaves[1:], strict=True):
        if leaf is not picked:
            picked = select(mine, leaf, picked)
    return picked


def _difference(specs: Any, other: Any) -> str:
    """What of one pair of specs is not in the other, in words."""
    fields, known = paths(specs), paths(other)
    shown = [
        f"{'.'.join(path[1:])} {s.dtype}{list(s.shape[1:])}"
        for path, s in fields.items()
        if known.get(path) != s
    ]
    return ", ".join(shown) or "nothing else"


def _check_parts(kind: str, operators: Sequence[OperatorModule]) -> None:
    if not operators:
        raise ValueError(f"{kind} needs at least one operator")
    for part in operators:
        if not isinstance(part, OperatorModule):
            raise TypeError(f"{kind} takes operators, got {type(part).__name__}")


def _check_probabilities(probabilities: Sequence[float] | None, count: int) -> None:
    if probabilities is None:
        return
    if not isinstance(probabilities, list | tuple):
        raise ValueError(f"probabilities must be a list of numbers, got {probabilities!r}")
    if len(probabilities) != count:
        raise ValueError(f"probabilities must be {count} numbers, got {list(probabilities)}")
    for number in probabilities:
        check_number("probabilities", number, low=0, high=1)
    if abs(sum(probabilities) - 1) > 1e-6:
        raise ValueError(f"probabilities must have sum 1, got {list(probabilities)}")
