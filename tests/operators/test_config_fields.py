"""Every field of every config is read: another value shows in the program, or is refused."""

import dataclasses
from functools import cache

import jax
import numpy as np
import pytest
from flax import nnx
from operator_row import batch_of
from operator_table import CONFIG_TABLE

from datarax.core import CrossModalOperatorConfig
from datarax.operators.build import OPERATIONS

SHARED = {f.name for f in dataclasses.fields(CrossModalOperatorConfig)}
made = cache(lambda name: CONFIG_TABLE[name].make())


def changes():
    """Every field that a row changes; in the gate the first row of an operator that changes it."""
    seen = set()
    for name, row in CONFIG_TABLE.items():
        for field in row.changes:
            config_field = (name.split()[0], field)
            known = config_field in seen
            seen.add(config_field)
            yield pytest.param(name, field, marks=[pytest.mark.slow] if known else [])


@cache
def first_outcome(name) -> tuple | str:
    """What the operator of a row is made of and does, before anything is changed."""
    return outcome(type(made(name)), made(name).config, batch_of(CONFIG_TABLE[name]))


def outcome(kind, config, batch, **change) -> tuple | str:
    """The operator, its parameters and its program on a batch; or the error it raises."""
    try:
        op = kind(dataclasses.replace(config, **change), rngs=nnx.Rngs(0, noise=1))
        program = jax.make_jaxpr(lambda batch: written(op(batch)))(batch)
        numbers = jax.tree.leaves((nnx.state(op, nnx.Param), program.consts))
        return op, [np.asarray(x) for x in numbers], str(program.jaxpr)
    except (ValueError, TypeError, KeyError) as error:
        return str(error)


def written(batch) -> tuple:
    return batch.data, batch.batch_state, batch.presence


def alike(a, b) -> bool:
    return len(a) == len(b) and all(
        x.shape == y.shape and np.array_equal(x, y) for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize(("name", "field"), list(changes()), ids=lambda x: str(x))
def test_another_value_shows(name, field):
    row, batch = CONFIG_TABLE[name], batch_of(CONFIG_TABLE[name])
    first = first_outcome(name)
    assert not isinstance(first, str), first
    op, numbers, program = first
    second = outcome(type(op), op.config, batch, **{field: row.changes[field]})
    if isinstance(second, str):
        assert field in second, second
        return
    if alike(numbers, second[1]) and program == second[2]:  # what is done outside the program
        a, b = (jax.tree.leaves(written(x(batch))) for x in (op, second[0]))
        assert not alike([np.asarray(x) for x in a], [np.asarray(x) for x in b]), "is not read"


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
