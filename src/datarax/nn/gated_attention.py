"""The block by which Flamingo lets a language model see."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from datarax.functional.attention.token_masks import media_location_mask
from datarax.functional.checks import accumulation_dtype, check_floating
from datarax.nn.attention import CrossAttention
from datarax.nn.feed_forward import FeedForward
from datarax.nn.normalization import LayerNorm
from datarax.nn.tokens import keep_tokens, token_mask


class GatedCrossAttention(nnx.Module):
    r"""$y = x + \tanh(\alpha) \mathrm{attend}(\bar x)$, $z = y + \tanh(\beta) \mathrm{ff}(\bar y)$.

    The numbers `attention.gate` ($\alpha$) and `feed_forward_gate` ($\beta$), shape (), are 0 at
    first: the block is then the identity. A bar is a layer norm (`norm`, `feed_forward_norm`; eps
    1e-5); the media are not normalised; no biases but those of the norms; the exact GELU.

    Args:
      features, media_features: widths of text and media tokens.
      num_heads, head_dim: of the attention.
      hidden_features: width between the feed-forward layers; `None`: four times `features`.
      immediate_only: a text token sees the last medium before it only, not all of them.
      dropout: probability that an attention weight is dropped in a call with an `rng_key`.
      rngs: the stream `params` draws the kernels, [in, out].

    Reference: Alayrac et al., 2022, arXiv:2204.14198, figure 4.

    Example:
      >>> block = GatedCrossAttention(4, 6, num_heads=2, head_dim=8, rngs=nnx.Rngs(0))
      >>> block(jnp.ones((3, 4)), jnp.ones((2, 5, 6))).tolist() == jnp.ones((3, 4)).tolist()
      True
    """

    def __init__(
        self,
        features: int,
        media_features: int,
        *,
        num_heads: int = 8,
        head_dim: int = 64,
        hidden_features: int | None = None,
        immediate_only: bool = True,
        dropout: float | int = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        self.immediate_only = immediate_only
        self.norm = LayerNorm(features, eps=1e-5)
        self.attention = CrossAttention(
            features,
            media_features,
            num_heads=num_heads,
            head_dim=head_dim,
            use_bias=False,
            gate="tanh",
            dropout=dropout,
            rngs=rngs,
        )
        self.feed_forward_norm = LayerNorm(features, eps=1e-5)
        self.feed_forward = FeedForward(
            features, hidden_features=hidden_features, use_bias=False, rngs=rngs
        )
        self.feed_forward_gate = nnx.Param(jnp.zeros((), jnp.float32))

    def __call__(
        self,
        text: Num[Array, "..."],
        media: Num[Array, "..."],
        *,
        media_locations: Array | None = None,
        text_mask: Array | None = None,
        media_mask: Array | None = None,
        rng_key: Array | None = None,
    ) -> Float[Array, "..."]:
        """Let text tokens see the media.

        Args:
          text: [..., t, features].
          media: [..., m, n, media_features], n tokens for each of m media.
          media_locations: bool [..., t], the text tokens that stand for the media, in order; see
            `functional.media_location_mask`. `None`: all text sees all media.
          text_mask: bool [..., t]; a token with False gives exactly 0, and locates nothing.
          media_mask: bool [..., m, n]; a token with False is not seen. Masked tokens may hold NaN.
          rng_key: draws the dropout; `None` turns it off.

        Returns:
          [..., t, features] in the dtype of `text`. Text that sees no medium gets exactly 0 from
          the attention.

        Raises:
          TypeError: if tokens are not floating point, or masks not boolean.
          ValueError: if the shapes do not fit.
        """
        check_floating(text=text, media=media)
        if media.ndim != text.ndim + 1 or text.ndim < 2 or media.shape[:-3] != text.shape[:-2]:
            raise ValueError(
                "expected text [..., t, d] and media [..., m, n, e] with equal leading axes, "
                f"got {text.shape} and {media.shape}"
            )
        there = token_mask(text_mask, text, name="text_mask")
        seen = token_mask(media_mask, media, name="media_mask")
        text = keep_tokens(text, there)
        attended = self.attention(
            self.norm(text),
            _flat(keep_tokens(media, seen), axis=-3),
            query_mask=there,
            context_mask=_flat(seen, axis=-2),
            mask=self._located(media_locations, there, seen),
            rng_key=rng_key,
        )
        text = text + attended.astype(text.dtype)
        gate = self.feed_forward_gate[...].astype(accumulation_dtype(text))
        gate = jnp.tanh(gate).astype(text.dtype)
        hidden = self.feed_forward(self.feed_forward_norm(text))
        return keep_tokens(text + jnp.broadcast_to(gate, hidden.shape) * hidden, there)

    def _located(self, locations: Array | None, there: Array, seen: Array) -> Array | None:
        """Which media token [..., 1, t, m n] each text token may see by the locations."""
        if locations is None:
            return None
        located = token_mask(locations, there[..., None], name="media_locations") & there
        media, tokens = seen.shape[-2:]
        mask = media_location_mask(located, media, immediate_only=self.immediate_only)
        return jnp.repeat(mask, tokens, axis=-1)[..., None, :, :]


def _flat(x: Array, *, axis: int) -> Array:
    """The array with the axis and the one after it joined."""
    axis += x.ndim
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
