"""What importing costs, and the names of the reference page with their signatures."""

import importlib
import inspect
import logging
import os
import statistics
import subprocess
import sys
import time

import pytest

import datarax
from datarax.core import cross_modal

NO_BACKEND = """
import datarax, datarax.core, datarax.core.cross_modal
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
"""


def python(code):
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return time.perf_counter() - start


def test_importing_starts_no_backend():
    python(NO_BACKEND)


def test_importing_costs_little_beside_jax_and_flax():
    """1.2 is the aim; the gate's machine is shared, so the bound here is generous."""
    ratios = []
    for _ in range(3):
        floor = python("import jax, flax, flax.nnx")
        ratios.append(python("import datarax, datarax.core") / floor)
    assert statistics.median(ratios) < 1.5


def test_operators_are_imported_when_first_asked_for():
    python(
        "import sys, datarax; assert 'datarax.operators' not in sys.modules;"
        "assert datarax.FusionOperator is datarax.operators.FusionOperator;"
        "assert {'functional', 'FusionOperator', 'Batch'} <= set(dir(datarax));"
        "assert all(getattr(datarax, name) is not None for name in datarax.__all__)"
    )
    with pytest.raises(AttributeError, match="'datarax' has no attribute 'FusionOperater'"):
        _ = datarax.FusionOperater


NAMES = {
    "datarax.core.config": ["DataraxModuleConfig", "OperatorConfig"],
    "datarax.core.module": ["DataraxModule"],
    "datarax.core.element_batch": ["Batch", "Element"],
    "datarax.core.operator": ["OperatorModule"],
    "datarax.core.cross_modal": ["CrossModalOperator", "CrossModalOperatorConfig"],
    "datarax.core.data_source": ["DataSourceModule"],
    "datarax.core.spec": ["spec_of"],
}


@pytest.mark.parametrize("path", NAMES)
def test_module_paths(path):
    module = importlib.import_module(path)
    for name in NAMES[path]:
        assert vars(module)[name].__module__ == path
        assert vars(module)[name].__doc__


def test_the_logger():
    assert cross_modal.logger is logging.getLogger("datarax.core.cross_modal")


SIGNATURES = {
    "apply": "self, data, state, metadata, random_params=None, stats=None",
    "generate_random_params": "self, rng, data_shapes",
    "get_operation_stats": "self",
    "reset_operation_stats": "self",
    "compute_statistics": "self, data",
    "get_statistics": "self",
    "set_statistics": "self, stats",
    "reset_statistics": "self",
    "reset_cache": "self",
    "copy": "self, *, config=None, rngs=None, name=None",
    "get_state": "self",
    "set_state": "self, state",
    "clone": "self",
    "requires_rng_streams": "self",
    "ensure_rng_streams": "self, stream_names",
    "get_output_structure": "self, sample_data, sample_state",
    "apply_batch": "self, batch, stats=None",
    "output_spec": "self, input_spec",
    "__init__": "self, config, *, rngs=None, name=None",
}


def bare(function):
    """A signature without annotations."""
    signature = inspect.signature(function)
    empty = inspect.Parameter.empty
    plain = [p.replace(annotation=empty) for p in signature.parameters.values()]
    return str(inspect.Signature(plain))[1:-1]


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_of_operators(name):
    method = inspect.getattr_static(cross_modal.CrossModalOperator, name)
    assert bare(method) == SIGNATURES[name]
    assert name == "__init__" or method.__doc__


def test_the_signature_of_the_config():
    assert bare(cross_modal.CrossModalOperatorConfig) == (
        "cacheable=False, batch_stats_fn=None, precomputed_stats=None, stochastic=False, "
        "stream_name=None, batch_strategy='vmap', *, input_fields, output_fields, "
        "operation='fusion', validate_alignment=True"
    )


def test_the_hierarchy():
    from datarax.core.config import OperatorConfig
    from datarax.core.module import DataraxModule
    from datarax.core.operator import OperatorModule

    assert cross_modal.CrossModalOperatorConfig.__bases__ == (OperatorConfig,)
    assert cross_modal.CrossModalOperator.__bases__ == (OperatorModule,)
    assert OperatorModule.__bases__[0] is DataraxModule
    assert datarax.__doc__
