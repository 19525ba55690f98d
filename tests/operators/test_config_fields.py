"""Every field of every config is read: another value shows in the program, or is refused."""

import dataclasses
from functools import cache

import jax
import numpy as np
import pytest
from flax import nnx
from operator_row import batch_of
from operator_table import CONFIG_TABLE

from datarax.core import Batch, CrossModalOperatorConfig
from datarax.operators.build import OPERATIONS

SHARED = {f.name for f in dataclasses.fields(CrossModalOperatorConfig)}
CHANGES = [(name, field) for name, row in CONFIG_TABLE.items() for field in row.changes]


made = cache(lambda name: CONFIG_TABLE[name].make())


@cache
def first_outcome(name) -> dict | str:
    """What the operator of a row makes of its batch, before anything is changed."""
    return outcome(type(made(name)), made(name).config, batch_of(CONFIG_TABLE[name]))


def outcome(kind, config, batch, **change) -> dict | str:
    """What the operator makes of a batch, with its parameters; or the error it raises."""
    try:
        op = kind(dataclasses.replace(config, **change), rngs=nnx.Rngs(0, noise=1))
        parameters = jax.tree.leaves(nnx.state(op, nnx.Param))
        return {"parameters": parameters, "out": op(batch)}
    except (ValueError, TypeError, KeyError) as error:
        return str(error)


def leaves(result) -> list[np.ndarray]:
    out = result["out"]
    parts = (out.data, out.batch_state, out.presence) if isinstance(out, Batch) else out
    return [np.asarray(x) for x in jax.tree.leaves((result["parameters"], parts))]


@pytest.mark.parametrize(("name", "field"), CHANGES, ids=lambda x: str(x))
def test_another_value_shows(name, field):
    row = CONFIG_TABLE[name]
    op, first = made(name), first_outcome(name)
    second = outcome(type(op), op.config, batch_of(row), **{field: row.changes[field]})
    assert isinstance(first, dict), first
    if isinstance(second, str):
        assert field in second, second
        return
    a, b = leaves(first), leaves(second)
    alike = len(a) == len(b) and all(
        x.shape == y.shape and np.array_equal(x, y) for x, y in zip(a, b, strict=True)
    )
    assert not alike, f"{field} is not read"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_field_of_the_config_is_changed_somewhere(operation):
    config = OPERATIONS[operation][0]
    own = {f.name for f in dataclasses.fields(config)} - SHARED
    changed = {
        field
        for name, row in CONFIG_TABLE.items()
        if type(getattr(made(name), "config", None)) is config
        for field in row.changes
    }
    assert own - changed == set()
