"""JAX made strict: no silent promotion of types or ranks, signatures checked at run time.

Programs are kept for the run: the same model is compiled by many tests, workers and commands.
"""

import atexit
import os
import shutil
import tempfile

# One place a worker, which its commands inherit: JAX does not write an entry at once, so that a
# second reader may find half of it.
_cache = tempfile.mkdtemp(prefix="datarax-tests-")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ |= {
    "JAX_COMPILATION_CACHE_DIR": _cache,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import jaxtyping
import pytest

for _room in ("functional", "nn", "core"):  # configs of operators speak for themselves
    jaxtyping.install_import_hook(f"datarax.{_room}", "beartype.beartype")

STRICT = ("functional", "nn", "operators", "core")


@pytest.fixture(autouse=True)
def strict_jax(request):
    """Strict promotion in the numeric rooms; training tests step out (optax needs it)."""
    if any(f"tests/{room}/" in request.node.nodeid for room in STRICT):
        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            yield
    else:
        yield


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
