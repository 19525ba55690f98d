"""One of several processes that train a contrastive operator on their parts of a batch.

python process_worker.py RANK COUNT PORT OUT METHOD...; process 0 writes what it found to OUT.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from datarax.core import Batch
from datarax.operators import ContrastiveOperator, ContrastiveOperatorConfig

ROWS, WIDTH = 16, 6


def operator(method, axis_name=None):
    config = ContrastiveOperatorConfig(
        input_fields=["image", "text"],
        output_fields=["loss"],
        method=method,
        features={"image": WIDTH, "text": WIDTH},
        projection_features=4,
        axis_name=axis_name,
    )
    return ContrastiveOperator(config, rngs=nnx.Rngs(0))


def fields():
    rng = np.random.default_rng(0)
    data = {n: rng.normal(size=(ROWS, WIDTH)).astype(np.float32) for n in ("image", "text")}
    return data, rng.random(ROWS) > 0.2


def step(method, put, axis_name=None):
    """The objective, and the gradient of every parameter, as lists."""
    graph, params, rest = nnx.split(operator(method, axis_name), nnx.Param, ...)
    data, valid = fields()
    batch = Batch.from_parts({n: put(x) for n, x in data.items()}, {}, valid_mask=put(valid))

    def objective(params, batch):
        return nnx.merge(graph, params, rest)(batch).mean("loss")

    value, gradients = jax.jit(jax.value_and_grad(objective))(params, batch)
    return [np.asarray(x).tolist() for x in (value, *jax.tree.leaves(gradients))]


def main(rank, count, port, out, methods):
    jax.distributed.initialize(
        f"127.0.0.1:{port}", num_processes=count, process_id=rank, initialization_timeout=60
    )
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("data"))
    share = ROWS // count

    def put(x):
        own = x[rank * share : (rank + 1) * share]
        return jax.make_array_from_process_local_data(spread, own, x.shape)

    with jax.set_mesh(mesh):
        found = {method: step(method, put, "data") for method in methods}
    if rank == 0:
        Path(out).write_text(json.dumps(found))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), sys.argv[4], sys.argv[5:])
