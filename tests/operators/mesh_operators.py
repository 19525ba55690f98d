"""Operators of the table on one device and on eight, in a process that has eight.

Run as a script: `python mesh_operators.py NAME...` prints a line for each row that differs.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from operator_row import batch_of, floats
from operator_table import TABLE

ROWS = 16


def program(name):
    """Value, presence and gradients of an operator, and its parameters."""
    row = TABLE[name]
    graph, parameters, rest = nnx.split(row.make(), nnx.Param, ...)

    def run(parameters, batch):
        def value(parameters, data):
            op = nnx.merge(graph, parameters, rest)
            out = op(batch.replace(data={**batch.data, **data}))
            total = jnp.sum(jnp.sin(out[row.out[0]].astype(jnp.float32)))
            return total, (out[row.out[0]], out.presence[row.out[0]])

        gradients, out = jax.grad(value, (0, 1), has_aux=True)(parameters, floats(batch))
        return out, gradients

    return jax.jit(run), parameters


def masked(name):
    """Sixteen records, some of them not valid and some without the first field."""
    field = next(iter(TABLE[name].shapes))
    there = {field: jnp.arange(ROWS) % 4 != 1}
    return batch_of(TABLE[name], rows=ROWS, valid_mask=jnp.arange(ROWS) % 5 != 3, presence=there)


def differences(name, *, kind):
    """What is wrong on a mesh of 8 devices with axes of a kind: a list of sentences."""
    run, parameters = program(name)
    batch = masked(name)
    expected = run(parameters, batch)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    spread = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    found = run(parameters, spread)
    wrong = []
    value = found[0][0]
    if kind == AxisType.Explicit and value.sharding.spec[0] != "data":
        wrong.append(f"rows lie as {value.sharding.spec}")
    pairs = zip(*map(jax.tree.leaves, (expected, found)), strict=True)
    for place, (a, b) in enumerate(pairs):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        close = 2e-5 * max(1.0, np.abs(a).max(initial=0))
        if not np.allclose(a, b, rtol=0, atol=close):
            wrong.append(f"result {place} differs by {np.abs(a - b).max():.1e}")
    return wrong


if __name__ == "__main__":
    for chosen in sys.argv[1:] or TABLE:
        for kind in (AxisType.Auto, AxisType.Explicit):
            try:
                problems = differences(chosen, kind=kind)
            except Exception as error:
                problems = [f"{type(error).__name__}: {str(error)[:300]}"]
            for problem in problems:
                print(f"{chosen}, {kind}: {problem}")
    print("done")
