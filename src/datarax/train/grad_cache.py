"""Encoding in micro-batches under a loss of the whole batch: the gradients without the memory."""

import functools
from collections.abc import Callable
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from datarax.core.counter import Counter

# What a call may change: the draws are carried on, and an operator's rows are not counted in a
# plain JAX transform either.
_CARRIED = (nnx.RngState,)
_IGNORED = (Counter,)


def grad_cache(encode: Callable[..., Any], *, micro_batch: int) -> Callable[..., Any]:
    r"""`encode` in micro-batches that keep no activations: call it in place of `encode`.

    $f(x)_{r} = encode(\theta, x_{R_i})_r$ for the rows $r \in R_i$ of micro-batch i. Only the
    results stay in memory; the backward pass computes the activations again, one micro-batch at a
    time, with the cotangent that the loss of all n rows has for it. So value and gradients are
    those of `encode(model, x)` wherever `encode` treats rows apart, the memory for activations is
    that of one micro-batch, and the price is one more forward pass of the encoder (4/3 of the
    time where a backward pass costs two forward ones). Use it once a tower, under any loss.

    The new function takes `(model, *inputs)`:

    - `model`: an `nnx.Module` or tree of modules, or a tree of arrays.
    - `inputs`: trees of arrays with the n rows on axis 0; a `Batch` is one. Numbers without axes
      go whole to every micro-batch, but a single PRNG key is folded with the number of the
      micro-batch. A key array [n] is split as rows are: then a row draws as without micro-batches.

    It returns what `encode` does: a tree of arrays with n rows on axis 0.

    Micro-batch i of k holds the rows i, i + k, i + 2 k, ..., so that rows sharded over devices stay
    where they are (over Explicit axes n must be a multiple of `micro_batch`); rows that are over
    come last, as one smaller micro-batch. (On a CPU, XLA computes the gradient of a convolution's
    kernel many times slower inside a loop, so convolutional encoders pay much more there.)

    A module that holds its own random streams draws as if called on one micro-batch after the
    other: both passes draw the same, and afterwards the streams stand where such calls leave them.

    Args:
      encode: `(model, *inputs)` to a tree of arrays, for any number of rows, each on its own.
      micro_batch: rows in a micro-batch, at least 1. From n on, there is one.

    Raises:
      TypeError: if `micro_batch` is no whole number.
      ValueError: if `micro_batch` is below 1; in the call, if the inputs do not share n, a result
        has another number of rows, or a call of the model changes a Variable that is no random
        state. That is what batch norm does in training: its statistics would be those of the
        micro-batch, and the gradients not those of the batch. The error names it; `model.eval()`,
        or a norm of each row, is the way out.

    Degenerate: for n == 0, `encode` itself.

    Reference: Gao et al., 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
    Setup", arXiv:2101.06983, section 3; the two passes are here `lax.scan` over `jax.checkpoint`.

    Example:
      >>> encode = grad_cache(lambda model, x: model(x), micro_batch=2)
      >>> tower = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
      >>> loss = lambda tower: jnp.sum(encode(tower, jnp.ones((5, 3))) ** 2)
      >>> nnx.grad(loss)(tower).kernel.shape
      (3, 4)
    """
    if isinstance(micro_batch, bool) or not isinstance(micro_batch, Integral):
        raise TypeError(f"micro_batch must be a whole number of rows, got {micro_batch!r}")
    if micro_batch < 1:
        raise ValueError(f"micro_batch must be at least 1, got {micro_batch}")

    @functools.wraps(encode)
    def cached(model: Any, *inputs: Any) -> Any:
        rows = _row_count(inputs)
        if rows == 0:
            return encode(model, *inputs)
        columns = _Columns(inputs, rows, micro_batch)
        if not _holds_modules(model):
            return columns.scan(lambda params, _, x: (encode(params, *x), ()), model, ())[0]
        tower = _Tower(encode, model)
        out, drawn = columns.scan(tower.encode, tower.rest, tower.random)
        tower.carry_on(model, drawn)
        return out

    return cached


class _Tower:
    """A model taken apart: what it learns, and the random state that calls hand on."""

    def __init__(self, encode: Callable[..., Any], model: Any) -> None:
        self._encode = encode
        self.graph, self.random, self.rest = nnx.split(model, _CARRIED, ...)
        self._drawn: set[Any] = set()

    def encode(self, rest: Any, random: Any, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        """The results, and the random state after them."""
        model = nnx.merge(self.graph, random, rest)
        before = _values(model)
        out = self._encode(model, *inputs)
        after = nnx.state(model)
        changed = {
            path: variable
            for path, variable in nnx.to_flat_state(after)
            if path not in before or variable.get_raw_value() is not before[path]
        }
        refused = [p for p, x in changed.items() if not isinstance(x, (*_CARRIED, *_IGNORED))]
        if refused:
            kinds = [f"{'.'.join(map(str, p))} ({type(changed[p]).__name__})" for p in refused]
            names = ", ".join(kinds)
            raise ValueError(
                f"a call of the model changes {names}: in micro-batches that would come from their "
                "rows, not from the batch's, and the gradients would be others. Call eval() on "
                "the model, or use a norm of each row (nnx.LayerNorm, nnx.GroupNorm)"
            )
        self._drawn |= {path for path, x in changed.items() if isinstance(x, _CARRIED)}
        return out, nnx.state(model, _CARRIED)

    def carry_on(self, model: Any, random: Any) -> None:
        """Leave the streams that were drawn from where the last micro-batch left them."""
        drawn = [(path, x) for path, x in nnx.to_flat_state(random) if path in self._drawn]
        if drawn:
            nnx.update(model, nnx.from_flat_state(drawn))


class _Columns:
    """Inputs cut into micro-batches.

    Args:
      inputs: trees of arrays, n rows on axis 0 or no axis at all.
      rows: n.
      size: rows in a micro-batch.
    """

    def __init__(self, inputs: Any, rows: int, size: int) -> None:
        self.leaves, self.treedef = jax.tree.flatten(inputs)
        self.rows, self.size = rows, size
        self.count, self.over = divmod(rows, size) if rows > size else (0, rows)

    def scan(self, call: Callable[..., Any], model: Any, carry: Any) -> tuple[Any, Any]:
        """`call(model, carry, inputs)` on one micro-batch after another: all rows, last carry."""
        parts = []

        def step(model: Any, carry: Any, cut: list[Any], number: Any) -> tuple[Any, Any]:
            out, carry = call(model, carry, self._inputs(cut, number))
            self._check(out, 0 if not cut else cut[0].shape[0])
            return out, carry

        if self.count:
            # In a scan the two passes cannot be merged into one: no barrier is needed.
            kept = jax.checkpoint(step, prevent_cse=False)
            cuts = [self._cut(x) for x in self.leaves if np.ndim(x)]
            numbers = jnp.arange(self.count, dtype=jnp.uint32)
            carry, out = jax.lax.scan(
                lambda carry, x: kept(model, carry, *x)[::-1], carry, (cuts, numbers)
            )
            parts.append(jax.tree.map(self._joined, out))
        if self.over:
            cut = [x[self.rows - self.over :] for x in self.leaves if np.ndim(x)]
            out, carry = jax.checkpoint(step)(model, carry, cut, jnp.uint32(self.count))
            parts.append(out)
        return jax.tree.map(lambda *x: x[0] if len(x) == 1 else jnp.concatenate(x), *parts), carry

    def _cut(self, x: Any) -> Any:
        head = x[: self.rows - self.over] if self.over else x
        return jnp.moveaxis(jnp.reshape(head, (self.size, self.count, *x.shape[1:])), 1, 0)

    def _joined(self, x: Any) -> Any:
        return jnp.reshape(jnp.moveaxis(x, 0, 1), (self.size * self.count, *x.shape[2:]))

    def _inputs(self, cut: list[Any], number: Any) -> tuple[Any, ...]:
        rows = iter(cut)
        leaves = [next(rows) if np.ndim(x) else _of_number(x, number) for x in self.leaves]
        return jax.tree.unflatten(self.treedef, leaves)

    def _check(self, out: Any, size: int) -> None:
        for path, x in jax.tree_util.tree_flatten_with_path(out)[0]:
            if np.ndim(x) == 0 or np.shape(x)[0] != size:
                raise ValueError(
                    f"encode must return arrays with the {size} rows of a micro-batch on axis 0, "
                    f"got shape {np.shape(x)} for {jax.tree_util.keystr(path) or 'the result'}"
                )


def _row_count(inputs: Any) -> int:
    shapes = {jax.tree_util.keystr(p): np.shape(x) for p, x in jax.tree.leaves_with_path(inputs)}
    counts = {shape[0] for shape in shapes.values() if shape}
    if len(counts) != 1:
        raise ValueError(f"the inputs must share one number of rows on axis 0, got {shapes}")
    return counts.pop()


def _of_number(x: Any, number: Any) -> Any:
    """A number as it is, a PRNG key as that of a micro-batch."""
    is_key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.random.fold_in(x, number) if is_key else x


def _values(model: Any) -> dict[Any, Any]:
    return {path: x.get_raw_value() for path, x in nnx.to_flat_state(nnx.state(model))}


def _holds_modules(model: Any) -> bool:
    leaves = jax.tree.leaves(model, is_leaf=_is_module)
    return any(map(_is_module, leaves))


def _is_module(x: Any) -> bool:
    return isinstance(x, nnx.Pytree)
