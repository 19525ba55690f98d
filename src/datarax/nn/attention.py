"""Attention from the tokens of one modality to those of another."""

from functools import reduce
from typing import Any, Literal, NamedTuple, get_args, overload

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from datarax.functional.attention.absorbed import absorbed_attention, absorbs
from datarax.functional.attention.dot_product import dot_product_attention
from datarax.functional.attention.rotary import rotary_embedding
from datarax.functional.checks import (
    accumulation_dtype,
    broadcast_array,
    broadcast_mask,
    check_floating,
    common_dtype,
)
from datarax.nn.linear import Linear
from datarax.nn.normalization import LayerNorm, RMSNorm
from datarax.nn.tokens import keep_tokens, token_mask

HeadNorm = Literal["rms", "layer"]
AttentionGate = Literal["tanh", "tanh_per_head"]


class CrossAttention(nnx.Module):
    r"""Multi-head attention $[o_1; \dots; o_H] W_o + c_o$ of query tokens to context tokens.

    Parameters: `query`, `key`, `value` and `output` are `Linear` layers with kernels [in, out],
    whose heads lie side by side, head 0 first (column `head * head_dim + i`).

    Args:
      query_features, context_features: widths of the two token sequences.
      num_heads: number of heads.
      head_dim: width of one head.
      num_kv_heads: heads of key and value, a divisor of `num_heads` (`None`: as many): query head
        h uses h // (num_heads / num_kv_heads), as in torch, flax and Llama.
      out_features: width of the result; `None`: `query_features`.
      use_bias: whether the four layers have biases.
      qk_norm: normalise each head of query and key before positions, with learned scales [head_dim]
        in `query_norm` and `key_norm`: `"rms"`, or `"layer"` (with a bias). `None`: no.
      rope_base: the longest wave of the rotary positions; see `functional.rotary_embedding`.
      gate: `"tanh"` multiplies the result by the tanh of a learned number, initially 0, and
        `"tanh_per_head"` each head, before the output layer, by its own. `None`: no gate.
      dropout: probability that an attention weight is dropped in a call with an `rng_key`.
      rngs: the stream `params` draws the kernels.

    Reference: Vaswani et al., 2017, arXiv:1706.03762; Ainslie et al., 2023, arXiv:2305.13245
      (grouped queries); Henry et al., 2020, arXiv:2010.04245 (normalised queries and keys);
      Alayrac et al., 2022, arXiv:2204.14198 (gate).

    Example:
      >>> attend = CrossAttention(4, 6, num_heads=2, head_dim=8, rngs=nnx.Rngs(0))
      >>> attend(jnp.ones((3, 4)), jnp.ones((5, 6))).shape
      (3, 4)
    """

    def __init__(
        self,
        query_features: int,
        context_features: int,
        *,
        num_heads: int,
        head_dim: int,
        num_kv_heads: int | None = None,
        out_features: int | None = None,
        use_bias: bool = True,
        qk_norm: HeadNorm | None = None,
        rope_base: float = 10000.0,
        gate: AttentionGate | None = None,
        dropout: float | int = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        shared = num_heads if num_kv_heads is None else num_kv_heads
        _check_options(num_heads, head_dim, shared, qk_norm=qk_norm, gate=gate, dropout=dropout)
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, shared, head_dim
        self.rope_base, self.dropout, self.gate_kind = rope_base, dropout, gate
        width, kv_width = num_heads * head_dim, shared * head_dim
        out = query_features if out_features is None else out_features
        self.query = Linear(query_features, width, use_bias=use_bias, rngs=rngs)
        self.key = Linear(context_features, kv_width, use_bias=use_bias, rngs=rngs)
        self.value = Linear(context_features, kv_width, use_bias=use_bias, rngs=rngs)
        self.output = Linear(width, out, use_bias=use_bias, rngs=rngs)
        self.query_norm = _head_norm(qk_norm, head_dim)
        self.key_norm = _head_norm(qk_norm, head_dim)
        shape = (num_heads,) if gate == "tanh_per_head" else ()
        self.gate = None if gate is None else nnx.Param(jnp.zeros(shape, jnp.float32))

    @overload
    def __call__(
        self,
        query: Array,
        context: Array,
        *,
        query_mask: Array | None = None,
        context_mask: Array | None = None,
        mask: Array | None = None,
        bias: Array | None = None,
        query_positions: Array | None = None,
        context_positions: Array | None = None,
        rng_key: Array | None = None,
        absorb: bool | None = None,
        return_weights: Literal[False] = False,
    ) -> Array: ...

    @overload
    def __call__(
        self,
        query: Array,
        context: Array,
        *,
        query_mask: Array | None = None,
        context_mask: Array | None = None,
        mask: Array | None = None,
        bias: Array | None = None,
        query_positions: Array | None = None,
        context_positions: Array | None = None,
        rng_key: Array | None = None,
        absorb: bool | None = None,
        return_weights: Literal[True],
    ) -> tuple[Array, Array]: ...

    def __call__(
        self,
        query: Num[Array, "..."],
        context: Num[Array, "..."],
        *,
        query_mask: Array | None = None,
        context_mask: Array | None = None,
        mask: Array | None = None,
        bias: Array | None = None,
        query_positions: Array | None = None,
        context_positions: Array | None = None,
        rng_key: Array | None = None,
        absorb: bool | None = None,
        return_weights: bool = False,
    ) -> Float[Array, "..."] | tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Attend [..., t, query_features] to [..., s, context_features].

        Args:
          query, context: token sequences with equal leading axes.
          query_mask: bool [..., t]; a token with False gives exactly 0.
          context_mask: bool [..., s]; a token with False is not seen. With none left the result is
            exactly 0. Masked tokens may hold NaN.
          mask: bool, broadcastable to [..., num_heads, t, s]: which token may see which. A token
            that it hides from some queries only must be finite.
          bias: added to the logits, broadcastable to [..., num_heads, t, s]; -inf masks.
          query_positions, context_positions: [..., t] and [..., s], or [t] and [s]: turn queries
            and keys by `functional.rotary_embedding`; both or none.
          rng_key: draws the dropout; `None` turns it off.
          absorb: see the context as it is and project queries and result instead, which is equal
            (`functional.attention.absorbed_attention`). `None`: where it takes fewer
            multiplications and keys are neither normalised nor turned.
          return_weights: return the weights [..., num_heads, t, s] in at least float32 as well, as
            they are before dropout and gate.

        Returns:
          [..., t, out_features] in the dtype of `query` (the wider one, if they differ). A query
          that sees nothing gives exactly 0, whatever the biases, with gradient 0.

        Raises:
          TypeError: if tokens are not floating point, or masks not boolean.
          ValueError: if shapes do not fit, one of the positions lacks, `head_dim` is odd with
            positions, or `absorb=True` meets normalised or turned keys.
        """
        self._check(query, context, query_positions, context_positions)
        there = _Tokens(query_mask, context_mask, query_positions, context_positions)
        keep = self._keep(query, context, there, mask=mask, bias=bias)
        if query_mask is not None:
            query = keep_tokens(query, query_mask)
        if context_mask is not None:
            context = keep_tokens(context, context_mask)
        query, context = common_dtype(query, context)
        options: dict[str, Any] = {
            "mask": keep,
            "bias": bias,
            "dropout": self.dropout,
            "rng_key": rng_key,
            "return_weights": return_weights,
        }
        if self._absorbs(query, context, absorb, turned=query_positions is not None):
            output = self._absorbed(query, context, options=options)
        else:
            output = self._projected(query, context, there, options=options)
        output, weights = output if return_weights else (output, None)
        if self.gate_kind == "tanh_per_head":
            output = self._gated(output)
        attended = self.output(output.reshape(*output.shape[:-2], -1))
        if self.gate_kind == "tanh":
            attended = self._gated(attended)
        if keep is not None:
            # The bias of the output layer would make an empty row nonzero.
            sees = jnp.any(keep, axis=(-3, -1))
            attended = keep_tokens(attended, jnp.broadcast_to(sees, attended.shape[:-1]))
        return attended if weights is None else (attended, weights)

    def _absorbs(self, query: Array, context: Array, absorb: bool | None, *, turned: bool) -> bool:
        """Whether the projections of the context are absorbed: as told, else by the sizes."""
        possible = self.key_norm is None and not turned
        if absorb and not possible:
            raise ValueError(
                "absorb=True needs keys that are linear in the context: qk_norm and positions must "
                f"be None, got {'a norm' if self.key_norm is not None else 'positions'}"
            )
        if absorb is not None or not possible:
            return bool(absorb)
        return absorbs(
            query.shape[-2],
            context.shape[-2],
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            context_features=context.shape[-1],
        )

    def _absorbed(self, query: Array, context: Array, *, options: dict[str, Any]) -> Any:
        key, value = (
            layer.kernel[...].reshape(-1, self.num_kv_heads, self.head_dim)
            for layer in (self.key, self.value)
        )
        added = self.value.bias
        return absorbed_attention(
            self._heads(query, self.query, norm=self.query_norm),
            context,
            key_kernel=key,
            value_kernel=value,
            value_bias=None if added is None else added[...].reshape(key.shape[1:]),
            **options,
        )

    def _projected(
        self, query: Array, context: Array, there: "_Tokens", *, options: dict[str, Any]
    ) -> Any:
        queries = self._heads(query, self.query, norm=self.query_norm)
        keys = self._heads(context, self.key, norm=self.key_norm)
        if there.query_positions is not None and there.context_positions is not None:
            queries = self._turned(queries, there.query_positions, there.query_mask)
            keys = self._turned(keys, there.context_positions, there.context_mask)
        return dot_product_attention(queries, keys, self._heads(context, self.value), **options)

    def _gated(self, x: Array) -> Array:
        assert self.gate is not None
        gate = jnp.tanh(self.gate[...].astype(accumulation_dtype(x)))
        gate = gate[:, None] if gate.ndim else gate
        return x * jnp.broadcast_to(gate.astype(x.dtype), x.shape)

    def _keep(
        self,
        query: Array,
        context: Array,
        there: "_Tokens",
        *,
        mask: Array | None,
        bias: Array | None,
    ) -> Array | None:
        """What may be seen [..., h, t, s], an axis 1 where it does not vary; `None`: everything."""
        shape = (*query.shape[:-2], self.num_heads, query.shape[-2], context.shape[-2])
        parts = []
        if there.context_mask is not None or context.shape[-2] == 0:
            tokens = token_mask(there.context_mask, context, name="context_mask")
            parts.append(tokens[..., None, None, :])
        if there.query_mask is not None:
            tokens = token_mask(there.query_mask, query, name="query_mask")
            parts.append(tokens[..., None, :, None])
        if mask is not None:
            broadcast_mask(mask, shape=shape, name="mask")
            parts.append(mask)
        if bias is not None:
            broadcast_array(bias, shape=shape, name="bias")
            parts.append(bias != -jnp.inf)
        if not parts:
            return None
        return reduce(jnp.logical_and, [_as_rank(x, len(shape)) for x in parts])

    def _heads(self, x: Array, layer: Linear, *, norm: LayerNorm | RMSNorm | None = None) -> Array:
        heads = layer(x)
        heads = heads.reshape(*heads.shape[:-1], -1, self.head_dim)
        return heads if norm is None else norm(heads)

    def _turned(self, heads: Array, positions: Array, mask: Array | None) -> Array:
        places = jnp.broadcast_to(positions, heads.shape[:-2])
        places = places if mask is None else jnp.where(mask, places, 0)
        return rotary_embedding(heads, places, base=self.rope_base)

    def _check(
        self,
        query: Array,
        context: Array,
        query_positions: Array | None,
        context_positions: Array | None,
    ) -> None:
        check_floating(query=query, context=context)
        widths = (self.query.in_features, self.key.in_features)
        fits = query.ndim >= 2 and query.ndim == context.ndim
        fits = fits and (query.shape[-1], context.shape[-1]) == widths
        if not fits or query.shape[:-2] != context.shape[:-2]:
            raise ValueError(
                f"expected query [..., t, {widths[0]}] and context [..., s, {widths[1]}] with "
                f"equal leading axes, got {query.shape} and {context.shape}"
            )
        if (query_positions is None) != (context_positions is None):
            lacking = "query" if query_positions is None else "context"
            raise ValueError(
                "rotary positions relate queries to context: give both query_positions and "
                f"context_positions, {lacking}_positions is None"
            )
        for name, x, positions in (
            ("query", query, query_positions),
            ("context", context, context_positions),
        ):
            shapes = (x.shape[:-1], x.shape[-2:-1])
            if positions is not None and positions.shape not in shapes:
                raise ValueError(
                    f"{name}_positions must have shape {shapes[0]} or {shapes[1]}, "
                    f"got {positions.shape}"
                )


class _Tokens(NamedTuple):
    """Which tokens are there, and where."""

    query_mask: Array | None
    context_mask: Array | None
    query_positions: Array | None
    context_positions: Array | None


def _as_rank(x: Array, rank: int) -> Array:
    return x.reshape(*[1] * (rank - x.ndim), *x.shape)


def _head_norm(kind: HeadNorm | None, head_dim: int) -> LayerNorm | RMSNorm | None:
    if kind is None:
        return None
    return RMSNorm(head_dim) if kind == "rms" else LayerNorm(head_dim)


def _check_options(
    num_heads: int,
    head_dim: int,
    num_kv_heads: int,
    *,
    qk_norm: HeadNorm | None,
    gate: AttentionGate | None,
    dropout: float,
) -> None:
    if num_heads < 1 or head_dim < 1:
        raise ValueError(f"num_heads and head_dim must be positive, got {num_heads}, {head_dim}")
    if num_kv_heads < 1 or num_heads % num_kv_heads:
        raise ValueError(
            f"num_kv_heads must be a positive divisor of num_heads {num_heads}, got {num_kv_heads}"
        )
    for name, value, choices in (("qk_norm", qk_norm, HeadNorm), ("gate", gate, AttentionGate)):
        if value is not None and value not in get_args(choices):
            listed = [None, *get_args(choices)]
            raise ValueError(f"{name} must be one of {listed}, got {value!r}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
