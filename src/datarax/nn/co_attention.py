"""Modalities that attend to each other."""

from collections.abc import Sequence
from typing import Literal, get_args

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from datarax.functional.attention.shared_similarity import co_attention
from datarax.nn.attention import CrossAttention
from datarax.nn.keys import split_keys
from datarax.nn.linear import Linear
from datarax.nn.tokens import keep_tokens, modality_tokens

CoAttentionMethod = Literal["shared_similarity", "all_pairs"]


class CoAttention(nnx.Module):
    r"""Each modality attends to the others.

    `"shared_similarity"`, of two modalities, computes one similarity a head,
    $S = (x_0 K_0)(x_1 K_1)^\top / \sqrt d$, takes its softmax over each axis, and gives
    $o_0 = \mathrm{softmax}_1(S)\, (x_1 V_1)\, W_0$ and $o_1$ likewise. Parameters: the layers
    `keys[m]`, `values[m]`, `outputs[m]`.

    `"all_pairs"`, of any number, has a `CrossAttention` for every directed pair, and gives each
    target what it sees in the sources side by side, in their order: [t_m, (M - 1) d_m]. Parameters:
    `pairs`, by target and then source.

    Args:
      in_features: the width of each modality.
      method: one of the two.
      num_heads, head_dim: of the attention.
      out_features: width of what a target sees in one source; `None`: the target's own.
      include_self: with `"all_pairs"`, each modality is a source for itself too (MultiBench has
        all M^2 pairs, the paper those of different modalities).
      dropout: with `"all_pairs"`, probability that an attention weight is dropped in a call with
        an `rng_key`.
      rngs: the stream `params` draws the kernels, [in, out].

    Reference: Lu et al., 2016, arXiv:1606.00061, and Li et al., 2022, arXiv:2112.03857 (shared);
      Tsai et al., 2019, arXiv:1906.00295, equation 3 (all pairs, without its feed-forward layers).

    Example:
      >>> attend = CoAttention((4, 6), num_heads=2, head_dim=8, rngs=nnx.Rngs(0))
      >>> tokens = [jnp.ones((3, 4)), jnp.ones((5, 6))]
      >>> [x.shape for x in nnx.eval_shape(attend, tokens)]
      [(3, 4), (5, 6)]
    """

    def __init__(
        self,
        in_features: Sequence[int],
        *,
        method: CoAttentionMethod = "all_pairs",
        num_heads: int,
        head_dim: int,
        out_features: int | None = None,
        include_self: bool = False,
        dropout: float | int = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        widths = tuple(in_features)
        _check_options(
            widths,
            method,
            num_heads=num_heads,
            head_dim=head_dim,
            include_self=include_self,
            dropout=dropout,
        )
        self.in_features, self.method = widths, method
        self.num_heads, self.head_dim = num_heads, head_dim
        self.include_self = include_self
        outs = [width if out_features is None else out_features for width in widths]
        if method == "all_pairs":
            self.pairs = nnx.List(
                [
                    CrossAttention(
                        widths[i],
                        widths[j],
                        num_heads=num_heads,
                        head_dim=head_dim,
                        out_features=outs[i],
                        dropout=dropout,
                        rngs=rngs,
                    )
                    for i, j in self._directed()
                ]
            )
            return
        inner = num_heads * head_dim
        self.keys = nnx.List([Linear(width, inner, rngs=rngs) for width in widths])
        self.values = nnx.List([Linear(width, inner, rngs=rngs) for width in widths])
        self.outputs = nnx.List([Linear(inner, out, rngs=rngs) for out in outs])

    def _directed(self) -> list[tuple[int, int]]:
        """(target, source) of each pair."""
        count = range(len(self.in_features))
        return [(i, j) for i in count for j in count if i != j or self.include_self]

    def __call__(
        self,
        tokens: Sequence[Num[Array, "..."]],
        *,
        masks: Sequence[Array | None] | None = None,
        rng_key: Array | None = None,
    ) -> list[Float[Array, "..."]]:
        """What each modality sees in the others.

        Args:
          tokens: [..., t_m, d_m] for each modality, with equal leading axes and dtype.
          masks: bool [..., t_m] for each, or `None` for one of which all tokens are there. A token
            with False gives exactly 0 and is not seen; it may hold NaN.
          rng_key: draws the dropout; `None` turns it off.

        Returns:
          One array a modality, in the dtype of the tokens. A token that sees nothing in a source
          gets exactly 0 from it, with gradient 0.

        Raises:
          TypeError: if tokens are not floating point or differ in dtype, or masks not boolean.
          ValueError: if numbers or shapes do not fit.
        """
        tokens, there = modality_tokens(tokens, masks, self.in_features)
        if self.method == "shared_similarity":
            return self._shared(tokens, there)
        seen: list[list[Array]] = [[] for _ in tokens]
        directed = self._directed()
        keys = split_keys(rng_key, len(directed))
        for (i, j), pair, key in zip(directed, self.pairs, keys, strict=True):
            seen[i].append(
                pair(
                    tokens[i],
                    tokens[j],
                    query_mask=there[i],
                    context_mask=there[j],
                    rng_key=key,
                )
            )
        return [jnp.concatenate(parts, axis=-1) for parts in seen]

    def _shared(self, tokens: Sequence[Array], there: Sequence[Array]) -> list[Array]:
        keys, values = (
            [
                layer(x).reshape(*x.shape[:-1], self.num_heads, self.head_dim)
                for layer, x in zip(layers, tokens, strict=True)
            ]
            for layers in (self.keys, self.values)
        )
        seen = co_attention(
            keys[0],
            keys[1],
            value_a=values[0],
            value_b=values[1],
            mask_a=there[0],
            mask_b=there[1],
        )
        outputs = []
        for m, (layer, x) in enumerate(zip(self.outputs, seen, strict=True)):
            live = there[m] & jnp.any(there[1 - m], axis=-1, keepdims=True)
            outputs.append(keep_tokens(layer(x.reshape(*x.shape[:-2], -1)), live))
        return outputs


def _check_options(
    widths: tuple[int, ...],
    method: CoAttentionMethod,
    *,
    num_heads: int,
    head_dim: int,
    include_self: bool,
    dropout: float,
) -> None:
    if method not in get_args(CoAttentionMethod):
        choices = list(get_args(CoAttentionMethod))
        raise ValueError(f"method must be one of {choices}, got {method!r}")
    if num_heads < 1 or head_dim < 1:
        raise ValueError(f"num_heads and head_dim must be positive, got {num_heads}, {head_dim}")
    shared = method == "shared_similarity"
    if len(widths) < 2 or (shared and len(widths) > 2):
        wanted = "exactly two" if shared else "two or more"
        raise ValueError(f"{method!r} relates {wanted} modalities, got in_features {widths}")
    if shared and (include_self or dropout > 0):
        raise ValueError(
            "include_self and dropout belong to method 'all_pairs', "
            f"got include_self={include_self}, dropout={dropout} with {method!r}"
        )
