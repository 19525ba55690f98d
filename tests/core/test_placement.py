"""Batches spread over devices, in a process that has four."""

import os
import subprocess
import sys

SCRIPT = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from datarax import Batch, CrossModalOperatorConfig, FusionOperator

config = CrossModalOperatorConfig(input_fields=["a", "b"], output_fields=["c"])
data = {n: np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32) for n in "ab"}
masks = {"valid_mask": np.arange(8) < 6, "presence": {"a": np.arange(8) % 2 == 0}}
here = FusionOperator(config)(Batch.from_parts(data, **masks))
mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
spread = jax.device_put((data, masks), NamedSharding(mesh, P("x")))
op = FusionOperator(config)
for parts in ({}, spread[1]):
    out = op(Batch.from_parts(spread[0], **parts))
np.testing.assert_allclose(out["c"], here["c"])
np.testing.assert_array_equal(out.presence["c"], here.presence["c"])
assert op.get_operation_stats() == {"applied_count": 14, "skipped_count": 2}
print("equal")
"""


def test_a_batch_on_four_devices_gives_the_same():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "equal\n", done.stderr
