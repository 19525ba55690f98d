"""JAX made strict: no silent promotion of types or ranks, signatures checked at run time.

Programs are kept for the run: the same model is compiled by many tests, workers and commands.
"""

import gc
import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import jaxtyping
import pytest

for _room in ("functional", "nn", "core"):  # configs of operators speak for themselves
    jaxtyping.install_import_hook(f"datarax.{_room}", "beartype.beartype")

STRICT = ("functional", "nn", "operators", "core")
WORTH_KEEPING = 0.3  # seconds of compilation


def pytest_configure(config):
    """A cache of programs for each worker and its commands.

    Not one for all: JAX writes an entry piecemeal, so that a second reader may find half of it.
    """
    config.programs = tempfile.mkdtemp(prefix="datarax-tests-")
    options = {
        "jax_compilation_cache_dir": config.programs,
        "jax_persistent_cache_min_compile_time_secs": WORTH_KEEPING,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in options.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


def pytest_collection_finish(session):
    """Seldom look for garbage among the programs that are alive: it took a quarter of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)


def pytest_unconfigure(config):
    """The programs are of no use to another run."""
    shutil.rmtree(config.programs, ignore_errors=True)


@pytest.fixture(autouse=True)
def kept_programs(request):
    """Only training and the commands compile the same program again: to write it is dear."""
    again = any(f"tests/{room}" in request.node.nodeid for room in ("train", "cli", "test_readme"))
    limit = WORTH_KEEPING if again else 1e9
    jax.config.update("jax_persistent_cache_min_compile_time_secs", limit)


@pytest.fixture(autouse=True)
def strict_jax(request):
    """Strict promotion in the numeric rooms; training tests step out (optax needs it)."""
    if any(f"tests/{room}/" in request.node.nodeid for room in STRICT):
        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            yield
    else:
        yield


@pytest.hookimpl(tryfirst=True)  # before xdist, which looks for the marks
def pytest_collection_modifyitems(items):
    """Tests that share a program or a trained run go to one worker of pytest-xdist."""
    for item in items:
        file = item.path.stem
        if file == "test_contracts" and item.get_closest_marker("parametrize"):
            parameters = item.callspec.params
            row = parameters.get("name") or parameters["case"].name
            item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.stem} {row}"))
        elif file in ("test_train", "test_commands"):
            item.add_marker(pytest.mark.xdist_group(file))
