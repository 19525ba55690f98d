"""An orthogonal map between two modalities, fitted in closed form and kept."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from datarax.functional.alignment.moments import row_mask, zeroed_rows
from datarax.functional.alignment.procrustes import orthogonal_map
from datarax.functional.checks import accumulation_dtype, check_floating
from datarax.functional.masking import masked_mean


class Fitted(nnx.Variable):
    """A value that comes from data in closed form: kept and saved, never trained."""


class ProcrustesMap(nnx.Module):
    r"""$x \mapsto (x - \mu_a) R + \mu_b$ with the orthogonal `R` of `functional.orthogonal_map`.

    The identity until it is fitted. `R` and the means are no Params: an optimizer leaves them.

    Args:
      features: the width `d` of both modalities.
      reflection: allow determinant -1.
      center: subtract the means before the fit; else both $\mu$ stay 0.

    Raises:
      ValueError: if `features` is not positive.

    Example:
      >>> rotate = ProcrustesMap(2)
      >>> rotate.fit(jnp.eye(2), jnp.array([[0.0, 1.0], [-1.0, 0.0]]))
      >>> rotate(jnp.array([2.0, 0.0])).tolist()
      [0.0, 2.0]
    """

    def __init__(self, features: int, *, reflection: bool = True, center: bool = False) -> None:
        if features < 1:
            raise ValueError(f"features must be positive, got {features}")
        self.features = features
        self.reflection = reflection
        self.center = center
        self.rotation = Fitted(jnp.eye(features, dtype=jnp.float32))
        self.source_mean = Fitted(jnp.zeros(features, jnp.float32))
        self.target_mean = Fitted(jnp.zeros(features, jnp.float32))

    def fit(
        self, a: Num[Array, "n d"], b: Num[Array, "m e"], *, where: Array | None = None
    ) -> None:
        """Keep the map from the kept rows of `a` to those of `b`.

        Raises:
          TypeError: if an input is not floating point or `where` not boolean.
          ValueError: if the shapes differ or are not [n, features], or `where` does not fit.
        """
        if a.shape[1:] != (self.features,):
            raise ValueError(f"a must have shape [n, features={self.features}], got {a.shape}")
        rotation = orthogonal_map(a, b, reflection=self.reflection, center=self.center, where=where)
        keep = row_mask(where, rows=a.shape[0])[:, None]
        self.rotation[...] = rotation.astype(jnp.float32)
        if self.center:
            for mean, x in ((self.source_mean, a), (self.target_mean, b)):
                rows = zeroed_rows(x, where=where)
                mean[...] = masked_mean(rows, where=keep, axis=0).astype(jnp.float32)

    def __call__(self, x: Num[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        """The mapped vectors in at least float32.

        Raises:
          TypeError: if `x` is not floating point.
          ValueError: if the last axis is not `features` wide.
        """
        check_floating(x=x)
        if x.shape[-1] != self.features:
            raise ValueError(f"x must have shape [..., features={self.features}], got {x.shape}")
        wide = accumulation_dtype(x)
        rotation, source, target = (
            v[...].astype(wide) for v in (self.rotation, self.source_mean, self.target_mean)
        )
        source = jnp.broadcast_to(source, x.shape)
        target = jnp.broadcast_to(target, x.shape)
        return jnp.matmul(x.astype(wide) - source, rotation, precision="highest") + target
