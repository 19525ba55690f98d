"""Attention as plain float64 loops, written from the papers; slow and obvious."""

import math

import numpy as np


def softmax(logits):
    """Of a dict of logits; nothing of nothing."""
    total = sum(math.exp(x) for x in logits.values())
    return {k: math.exp(x) / total for k, x in logits.items()}


def attend(query, key, value, seen, *, bias=None, scale=None):
    """One record, [t, h, d]: query head i reads key head i // (h / k). `seen` is bool [t, s]."""
    t, h, d = query.shape
    share = h // key.shape[1]
    out = np.zeros((t, h, value.shape[-1]))
    for i in range(t):
        for head in range(h):
            logits = {
                s: sum(query[i, head, c] * key[s, head // share, c] for c in range(d))
                * (1 / math.sqrt(d) if scale is None else scale)
                + (0 if bias is None else bias[head, i, s])
                for s in range(len(key))
                if seen[i, s]
            }
            for s, weight in softmax(logits).items():
                out[i, head] += weight * value[s, head // share]
    return out


def grouped_attention(query, key, value, mask, ids):
    n, t, s = len(query), query.shape[1], key.shape[1]
    seen = np.ones((n, s), bool) if mask is None else mask
    return np.stack(
        [attend(query[i], key[i], value[i], np.tile(seen[i], (t, 1))) for i in range(n)]
    )


def rotary(x, positions, *, base=10000.0):
    """One sequence [t, h, d]: complex numbers x_2i + i x_2i+1, turned."""
    out = np.zeros_like(x)
    d = x.shape[-1]
    for t, h, i in np.ndindex(len(x), x.shape[1], d // 2):
        angle = positions[t] * base ** (-2 * i / d)
        turned = complex(x[t, h, 2 * i], x[t, h, 2 * i + 1]) * complex(
            math.cos(angle), math.sin(angle)
        )
        out[t, h, 2 * i], out[t, h, 2 * i + 1] = turned.real, turned.imag
    return out


def rotary_rows(x, positions, mask, ids):
    return np.stack([rotary(a, p) for a, p in zip(x, positions, strict=True)])


def root_mean_square(x, scale, *, eps):
    out = np.zeros_like(x)
    for i in np.ndindex(*x.shape[:-1]):
        mean = sum(v * v for v in x[i]) / x.shape[-1]
        out[i] = [g * v / math.sqrt(mean + eps) for g, v in zip(scale, x[i], strict=True)]
    return out


def co_attention(a, b, mask, ids):
    """What the tokens of `a` [n, t, h, d] see of `b` [n, s, h, d], of which some are masked."""
    out = np.zeros_like(a)
    for i in range(len(a)):
        seen = np.ones((a.shape[1], b.shape[1]), bool)
        if mask is not None:
            seen &= mask[i]
        out[i] = attend(a[i], b[i], b[i], seen)
    return out


def linear(layer, x):
    y = x @ np.asarray(layer.kernel[...], np.float64)
    return y if layer.bias is None else y + np.asarray(layer.bias[...], np.float64)


def layer_norm(norm, x):
    scale, bias = (np.asarray(p[...], np.float64) for p in (norm.scale, norm.bias))
    out = np.zeros_like(x)
    for i in np.ndindex(*x.shape[:-1]):
        mean = sum(x[i]) / len(x[i])
        variance = sum((v - mean) ** 2 for v in x[i]) / len(x[i])
        out[i] = (x[i] - mean) / math.sqrt(variance + norm.eps) * scale + bias
    return out


def gelu(x):
    return np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))(x)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def feed_forward(layer, x):
    hidden = linear(layer.wide, x)
    if layer.activation == "geglu":
        half = hidden.shape[-1] // 2
        return linear(layer.narrow, hidden[..., :half] * gelu(hidden[..., half:]))
    phi = {"gelu": gelu, "gelu_tanh": gelu_tanh, "relu": lambda v: np.maximum(v, 0)}
    return linear(layer.narrow, phi[layer.activation](hidden))


def cross_attention(module, query, context, seen, **options):
    """One record, [t, d] and [s, e]; without gate, norm or positions."""

    def heads(layer, x):
        return linear(layer, x).reshape(len(x), -1, module.head_dim)

    out = attend(
        heads(module.query, query),
        heads(module.key, context),
        heads(module.value, context),
        seen,
        **options,
    )
    result = linear(module.output, out.reshape(len(query), -1))
    result[~seen.any(axis=1)] = 0
    return result
