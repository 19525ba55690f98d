"""The devices that rows are spread over, and the ways in which they exchange them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array

from datarax.functional.contrastive.rows import check_choice
from datarax.functional.contrastive.tiles import choose_tile

Collective = Literal["gather", "ring"]
AxisName = str | tuple[str, ...]

# Bytes of all columns and of their gradient, above which they are not gathered on each device.
GATHERED_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Spread:
    """Where the rows of an array lie.

    Attributes:
      axis: the axis of a mesh, or axes, over which they are spread.
      mesh: that mesh; `None` under `shard_map` over this axis, where arrays are local rows.
    """

    axis: AxisName
    mesh: Any

    @property
    def count(self) -> int:
        """The number of devices."""
        if self.mesh is None:
            return lax.axis_size(self.axis)
        names = (self.axis,) if isinstance(self.axis, str) else self.axis
        return math.prod(self.mesh.shape[name] for name in names)

    def run(self, function: Callable[[int, Any, Any], Array], rows: Any, shared: Any) -> Array:
        """The function of the number of devices, each one's rows, and what all share.

        Args:
          function: gives an array of local rows.
          rows: a tree of arrays of n rows. Where n is no multiple of the devices, rows of zeros
            and False are added, and taken off the result.
          shared: a tree of arrays.
        """
        if self.mesh is None:
            return function(self.count, rows, shared)
        count = self.count
        n = jax.tree.leaves(rows)[0].shape[0]
        mapped = jax.shard_map(
            lambda *local: function(count, *local),
            mesh=self.mesh,
            in_specs=(PartitionSpec(self.axis), PartitionSpec()),
            out_specs=PartitionSpec(self.axis),
        )
        rows = jax.tree.map(lambda x: self._placed(_padded(x, -n % count), self.axis), rows)
        found = mapped(rows, jax.tree.map(self._placed, shared))
        return found if n % count == 0 else self._placed(found)[:n]

    def _placed(self, x: Array, axis: AxisName | None = None) -> Array:
        """The array, its first axis spread over `axis`: nothing is done that the compiler does."""
        if all(kind == AxisType.Auto for kind in self.mesh.axis_types):
            return x
        spec = PartitionSpec() if axis is None else PartitionSpec(axis)
        return jax.sharding.reshard(x, NamedSharding(self.mesh, spec))


def spread_of(
    x: Array, axis_name: AxisName | None, *, collective: Collective | None = None
) -> Spread | None:
    """Over which devices the rows of an array lie, `None` for one.

    Under `shard_map` over `axis_name`, over that axis. Otherwise over the axis of the array's mesh
    (that of its type, or of `jax.set_mesh`) that is named; without a name over the one that its
    type shows (`AxisType.Explicit`), or over the only one that the mesh has (`AxisType.Auto`).

    Raises:
      ValueError: if no mesh has the axis, or `collective` is none of the choices.
    """
    if collective is not None:
        check_choice(collective, Collective, name="collective")
    context = jax.sharding.get_abstract_mesh()
    names = {axis_name} if isinstance(axis_name, str) else set(axis_name or ())
    if axis_name is not None and names <= set(context.manual_axes):
        return Spread(axis_name, None)
    sharding = jax.typeof(x).sharding
    mesh = context if sharding.mesh.empty else sharding.mesh
    if not names <= (set() if mesh.manual_axes else set(mesh.axis_names)):
        raise ValueError(
            f"axis_name must name an axis of shard_map or of a mesh, got {axis_name!r} and axes "
            f"{list(mesh.axis_names)}: give the arrays a sharding, or call under jax.set_mesh"
        )
    automatic = mesh.axis_types == (AxisType.Auto,)
    if mesh.empty or mesh.manual_axes or (automatic and mesh.size == 1):
        return None
    axis = axis_name or sharding.spec[0] or (mesh.axis_names[0] if automatic else None)
    return None if axis is None else Spread(axis, mesh)


@dataclass(frozen=True)
class Exchange:
    """How rows travel and logits are cut; see `info_nce`."""

    collective: Collective | None = None
    tile: int | None = None
    operands: DTypeLike | None = None

    def form(self, axis: AxisName, count: int, y: Array) -> "MeshForm":
        """That of `count` devices for the local rows y."""
        collective = self.collective
        if collective is None:
            dtype = jnp.dtype(y.dtype if self.operands is None else self.operands)
            collective = choose_collective(count * y.shape[0], y.shape[1], itemsize=dtype.itemsize)
        return MeshForm(axis, count, collective, self.tile, self.operands)


@dataclass(frozen=True)
class MeshForm:
    """The axis of a mesh over which rows are spread, its devices, and how they exchange rows.

    tile: rows of a block of logits; `None` chooses.
    operands: the dtype that the operands of the products are rounded to, and travel in.
    """

    axis: AxisName
    count: int
    collective: Collective
    tile: int | None = None
    operands: DTypeLike | None = None

    def hop(self, tree: Any) -> Any:
        """Each device's arrays, handed to the next one."""
        ring = [(i, (i + 1) % self.count) for i in range(self.count)]
        return jax.tree.map(lambda x: lax.ppermute(x, self.axis, ring), tree)

    def gathered(self, x: Array) -> Array:
        """The rows of all devices, in order."""
        return lax.all_gather(x, self.axis, axis=0, tiled=True)

    def scattered(self, x: Array) -> Array:
        """The sum over devices of rows for all of them: each device's own."""
        return lax.psum_scatter(x, self.axis, scatter_dimension=0, tiled=True)

    def varying(self, tree: Any) -> Any:
        """The arrays as values of each device: gradients of a replicated one are then summed."""
        zero = 0 * lax.axis_index(self.axis)
        return jax.tree.map(lambda x: _plus_zero(x, zero), tree)

    def places(self, rows: int) -> Array:
        """int32 [rows], the place of each local row among those of all devices."""
        first = rows * lax.axis_index(self.axis).astype(jnp.int32)
        return lax.iota(jnp.int32, rows) + first

    def level(self, g: Array, rows: Array) -> tuple[Array, Array]:
        """The cotangent of the rows that are there, on all devices, and whether they have but one.

        A constant, as that of `rules.level_of`.
        """
        g = lax.stop_gradient(g)
        top = lax.pmax(jnp.max(g, initial=-jnp.inf, where=rows), self.axis)
        bottom = lax.pmin(jnp.min(g, initial=jnp.inf, where=rows), self.axis)
        return jnp.where(bottom > top, 0, top), bottom >= top

    def block_rows(self, x: Array, y: Array) -> int:
        """Rows of a block of the logits of x and y."""
        return self.tile or choose_tile(x.shape[0], y.shape[0])


def choose_collective(rows: int, features: int, *, itemsize: int) -> Collective:
    """To gather all columns and their gradient in float32 on each device while they fit."""
    return "gather" if rows * features * (itemsize + 4) <= GATHERED_BYTES else "ring"


def _padded(x: Array, rows: int) -> Array:
    return jnp.pad(x, [(0, rows)] + [(0, 0)] * (x.ndim - 1)) if rows else x


def _plus_zero(x: Array, zero: Array) -> Array:
    return x | (zero > 0) if x.dtype == jnp.bool_ else x + zero.astype(x.dtype)
