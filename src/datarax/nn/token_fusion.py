"""Fusions by transformers over the tokens of all modalities. Kernels are [in, out].

They are called with token sequences [..., t_m, d_m], a single vector being one token [..., 1, d_m],
the presence of each modality [...], and optionally a mask [..., t_m] for the tokens of each. A
modality without a kept token counts as absent; a record of which nothing is there gives 0.
Positions are not encoded: a sequence whose order matters must carry them. No dropout.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from datarax.functional.masking import masked_mean
from datarax.nn.linear import Linear
from datarax.nn.modalities import Inputs, Presence, check_inputs, check_widths, linears
from datarax.nn.normalization import LayerNorm
from datarax.nn.tokens import keep_tokens, token_mask
from datarax.nn.transformer import TransformerBlock

Readout = Literal["cls", "mean"]
TokenMasks = Sequence[Array | None] | None


class TransformerFusion(nnx.Module):
    r"""One transformer over the tokens of all modalities, read out from one token or their mean.

    Each modality's tokens are projected to one width and get a learned type vector.

    Args:
      in_features: the widths of at least two modalities' tokens.
      out_features: the width of the result.
      hidden_features: the width of a token inside; `None`: `out_features`.
      depth: number of blocks.
      num_heads: heads of each block, which divide the width.
      mlp_features: the width between a block's two layers; `None`: four times the token's.
      readout: `"cls"`: a learned token before the others; `"mean"`: the mean of the kept tokens.
      rngs: the stream `params` draws the parameters.

    Parameters: `projections[m]` (kernel [d_m, hidden], bias), `types` [m, hidden], `cls` [hidden]
    (for `"cls"`), `blocks[depth]` (`TransformerBlock`), `norm` (`LayerNorm`), `output` (kernel
    [hidden, out], bias). The order of tokens: cls, then the modalities in theirs.

    Reference: Vaswani et al., 2017, arXiv:1706.03762; as a fusion, Dufumier et al., 2025,
    arXiv:2409.07402 (CoMM).

    Example:
      >>> fusion = TransformerFusion((2, 3), 4, rngs=nnx.Rngs(0))
      >>> nnx.eval_shape(fusion, [jnp.ones((5, 2)), jnp.ones((1, 3))]).shape
      (4,)
    """

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: int,
        *,
        hidden_features: int | None = None,
        depth: int = 2,
        num_heads: int = 4,
        mlp_features: int | None = None,
        readout: Readout = "cls",
        rngs: nnx.Rngs,
    ) -> None:
        self.in_features = check_widths(in_features, at_least=2, name="transformer fusion")
        _check_readout(readout)
        self.readout = readout
        width = out_features if hidden_features is None else hidden_features
        normal = nnx.initializers.normal(0.02)
        self.projections = nnx.List(linears(self.in_features, width, rngs))
        count = len(self.in_features)
        self.types = nnx.Param(normal(rngs.params(), (count, width), jnp.float32))
        drawn = normal(rngs.params(), (width,), jnp.float32)
        self.cls = nnx.Param(drawn) if readout == "cls" else None
        self.blocks = nnx.List(
            _blocks(depth, width, num_heads=num_heads, mlp_features=mlp_features, rngs=rngs)
        )
        self.norm = LayerNorm(width)
        self.output = Linear(width, out_features, rngs=rngs)

    def __call__(
        self, inputs: Inputs, presence: Presence = None, *, masks: TokenMasks = None
    ) -> Float[Array, "..."]:
        """The fused vector [..., out_features]."""
        tokens, keeps = _tokens(
            self.projections, inputs, presence, masks=masks, in_features=self.in_features
        )
        tokens = [x + _repeat(v, x.shape, x) for x, v in zip(tokens, self.types[...], strict=True)]
        live = jnp.any(jnp.concatenate(keeps, axis=-1), axis=-1, keepdims=True)
        if self.cls is not None:
            shape = (*tokens[0].shape[:-2], 1, tokens[0].shape[-1])
            tokens, keeps = [_repeat(self.cls[...], shape, tokens[0]), *tokens], [live, *keeps]
        x, keep = jnp.concatenate(tokens, axis=-2), jnp.concatenate(keeps, axis=-1)
        for block in self.blocks:
            x = block(x, keep)
        x = self.norm(x)
        read = x[..., 0, :] if self.cls is not None else _mean(x, keep)
        return jnp.where(live, self.output(read), 0)


class BottleneckFusion(nnx.Module):
    r"""Multimodal bottleneck transformer: the modalities meet in a few shared tokens only.

    Each modality has blocks of its own. From layer `fusion_layer` on they also hold the bottleneck
    tokens z: $[x_m'; z_m] = B_m([x_m; z])$, and $z$ becomes the mean of $z_m$ over the modalities
    that are there.

    Args:
      in_features: the widths of at least two modalities' tokens.
      out_features: the width of the result.
      hidden_features: the width of a token inside; `None`: `out_features`.
      depth: number of layers.
      fusion_layer: the first layer with bottleneck tokens, from 0 to `depth`. What one modality
        writes into them another reads a layer later: the modalities meet before the readout only
        where it is at most `depth - 2`.
      num_bottlenecks: number of bottleneck tokens (scenic's MBT adds one with a class token).
      num_heads: heads of each block, which divide the width.
      mlp_features: the width between a block's two layers; `None`: four times the token's.
      readout: `"mean"`: of the kept tokens of all modalities (MBT's `gap`); `"cls"`: of a learned
        token for each modality that is there (MBT's `token`).
      rngs: the stream `params` draws the parameters.

    Parameters: `projections[m]` (kernel [d_m, hidden], bias), `cls` [m, hidden] (for `"cls"`),
    `bottleneck` [num_bottlenecks, hidden] (none if `fusion_layer` is `depth`),
    `blocks[layer][m]` (`TransformerBlock`), `norm` (`LayerNorm`), `output` (kernel [hidden, out],
    bias). The order of tokens: cls, the modality's, the bottleneck's.

    Reference: Nagrani et al., 2021, arXiv:2107.00135, equations 6 to 9.

    Example:
      >>> fusion = BottleneckFusion((2, 3), 4, rngs=nnx.Rngs(0))
      >>> nnx.eval_shape(fusion, [jnp.ones((5, 2)), jnp.ones((1, 3))]).shape
      (4,)
    """

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: int,
        *,
        hidden_features: int | None = None,
        depth: int = 2,
        fusion_layer: int = 0,
        num_bottlenecks: int = 4,
        num_heads: int = 4,
        mlp_features: int | None = None,
        readout: Readout = "mean",
        rngs: nnx.Rngs,
    ) -> None:
        self.in_features = check_widths(in_features, at_least=2, name="bottleneck fusion")
        _check_readout(readout)
        if not 0 <= fusion_layer <= depth:
            raise ValueError(f"fusion_layer must be from 0 to depth {depth}, got {fusion_layer}")
        if num_bottlenecks < 1:
            raise ValueError(f"num_bottlenecks must be positive, got {num_bottlenecks}")
        self.readout, self.fusion_layer = readout, fusion_layer
        width = out_features if hidden_features is None else hidden_features
        normal = nnx.initializers.normal(0.02)
        count = len(self.in_features)
        self.projections = nnx.List(linears(self.in_features, width, rngs))
        drawn = normal(rngs.params(), (count, width), jnp.float32)
        self.cls = nnx.Param(drawn) if readout == "cls" else None
        drawn = normal(rngs.params(), (num_bottlenecks, width), jnp.float32)
        self.bottleneck = nnx.Param(drawn) if fusion_layer < depth else None
        towers = [
            _blocks(depth, width, num_heads=num_heads, mlp_features=mlp_features, rngs=rngs)
            for _ in range(count)
        ]
        self.blocks = nnx.List([nnx.List(layer) for layer in zip(*towers, strict=True)])
        self.norm = LayerNorm(width)
        self.output = Linear(width, out_features, rngs=rngs)

    def __call__(
        self, inputs: Inputs, presence: Presence = None, *, masks: TokenMasks = None
    ) -> Float[Array, "..."]:
        """The fused vector [..., out_features]."""
        tokens, keeps = _tokens(
            self.projections, inputs, presence, masks=masks, in_features=self.in_features
        )
        there = jnp.stack([jnp.any(keep, axis=-1) for keep in keeps], axis=-1)
        if self.cls is not None:
            shape = (*tokens[0].shape[:-2], 1, tokens[0].shape[-1])
            firsts = [_repeat(v, shape, tokens[0]) for v in self.cls[...]]
            tokens = [jnp.concatenate(p, axis=-2) for p in zip(firsts, tokens, strict=True)]
            keeps = [
                jnp.concatenate([there[..., m : m + 1], keep], axis=-1)
                for m, keep in enumerate(keeps)
            ]
        tokens = self._encode(tokens, keeps, there)
        tokens = [self.norm(x) for x in tokens]
        if self.cls is not None:
            read = _mean(jnp.stack([x[..., 0, :] for x in tokens], axis=-2), there)
        else:
            read = _mean(jnp.concatenate(tokens, axis=-2), jnp.concatenate(keeps, axis=-1))
        return jnp.where(jnp.any(there, axis=-1, keepdims=True), self.output(read), 0)

    def _encode(self, tokens: list[Array], keeps: list[Array], there: Array) -> list[Array]:
        """All layers; the bottleneck tokens are shared from `fusion_layer` on."""
        for layer in self.blocks[: self.fusion_layer]:
            tokens = [block(*parts) for block, *parts in zip(layer, tokens, keeps, strict=True)]
        if self.bottleneck is None:
            return tokens
        count, width = self.bottleneck.shape
        shared = _repeat(self.bottleneck[...], (*there.shape[:-1], count, width), tokens[0])
        seen = [
            jnp.concatenate([keep, jnp.ones((*keep.shape[:-1], count), bool)], axis=-1)
            for keep in keeps
        ]
        for layer in self.blocks[self.fusion_layer :]:
            mixed = [
                block(jnp.concatenate([x, shared], axis=-2), keep)
                for block, x, keep in zip(layer, tokens, seen, strict=True)
            ]
            tokens = [x[..., :-count, :] for x in mixed]
            ends = jnp.stack([x[..., -count:, :] for x in mixed], axis=-3)
            shared = masked_mean(ends, where=there[..., None, None], axis=-3)
        return tokens


def _blocks(
    depth: int, width: int, *, num_heads: int, mlp_features: int | None, rngs: nnx.Rngs
) -> list[TransformerBlock]:
    if depth < 1:
        raise ValueError(f"depth must be positive, got {depth}")
    mlp = 4 * width if mlp_features is None else mlp_features
    return [
        TransformerBlock(width, num_heads=num_heads, mlp_features=mlp, rngs=rngs)
        for _ in range(depth)
    ]


def _check_readout(readout: str) -> None:
    if readout not in get_args(Readout):
        raise ValueError(f"readout must be one of {list(get_args(Readout))}, got {readout!r}")


def _tokens(
    layers: Iterable[Linear],
    inputs: Inputs,
    presence: Presence,
    *,
    masks: TokenMasks,
    in_features: Sequence[int],
) -> tuple[list[Array], list[Array]]:
    """Projected tokens and which are kept, those that are not zeroed before the projection."""
    check_inputs(inputs, presence, in_features, tokens=True)
    masks = [None] * len(inputs) if masks is None else masks
    if len(masks) != len(inputs):
        raise ValueError(f"masks must hold {len(inputs)} entries, got {len(masks)}")
    keeps = [
        token_mask(mask, x, name=f"masks[{m}]")
        for m, (x, mask) in enumerate(zip(inputs, masks, strict=True))
    ]
    if presence is not None:
        keeps = [keep & there[..., None] for keep, there in zip(keeps, presence, strict=True)]
    kept = [keep_tokens(x, keep) for x, keep in zip(inputs, keeps, strict=True)]
    return [layer(x) for layer, x in zip(layers, kept, strict=True)], keeps


def _repeat(vector: Array, shape: tuple[int, ...], like: Array) -> Array:
    return jnp.broadcast_to(vector.astype(like.dtype), shape)


def _mean(tokens: Array, keep: Array) -> Array:
    return masked_mean(tokens, where=keep[..., None], axis=-2)
