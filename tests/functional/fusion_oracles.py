"""The fusions as float64 loops, written from the papers."""

import math
from itertools import product

import numpy as np


def _there(mask, i, m):
    return True if mask is None else bool(mask[i, m])


def _rows(x, mask, one):
    """`one(modalities of a row, which of them are there)` for each row, 0 where none is."""
    out = []
    for i in range(len(x)):
        there = [_there(mask, i, m) for m in range(x.shape[-2])]
        value = np.asarray(one(x[i], there), np.float64)
        out.append(value if any(there) else np.zeros_like(value))
    return np.array(out)


def sigmoid(v):
    return 1 / (1 + math.exp(-v))


def gate(x, mask, ids):
    def one(row, there):
        return [
            (sigmoid(g) if there[0] else 1.0) * (v if there[1] else 1.0)
            for g, v in zip(row[0], row[1], strict=True)
        ]

    return _rows(x, mask, one)


def film(x, mask, ids):
    def one(row, there):
        k = len(row[0]) // 2
        gamma = row[0][:k] if there[0] else np.ones(k)
        beta = row[0][k:] if there[0] else np.zeros(k)
        h = row[1][:k] if there[1] else np.zeros(k)
        return [gamma[j] * h[j] + beta[j] for j in range(k)]

    return _rows(x, mask, one)


def signed_sqrt(x, mask=None, ids=None):
    return np.array([[math.copysign(math.sqrt(abs(v)), v) for v in row] for row in x])


def _normalized(vector):
    roots = [math.copysign(math.sqrt(abs(v)), v) for v in vector]
    norm = math.sqrt(sum(r * r for r in roots))
    return [r / norm for r in roots]


def power_normalize(x, mask, ids):
    return np.array([_normalized(row) for row in x])


def _products(row, there):
    return [math.prod(row[m][k] for m in range(len(row)) if there[m]) for k in range(len(row[0]))]


def hadamard(x, mask, ids):
    return _rows(x, mask, _products)


def mfb(rank):
    def one(row, there):
        terms = _products(row, there)
        return [sum(terms[j * rank + f] for f in range(rank)) for j in range(len(terms) // rank)]

    return lambda x, mask, ids: _rows(x, mask, one)


def mutan(rank):
    def one(row, there):
        terms = _products(row, there)
        k = len(terms) // rank
        return [sum(terms[i * k + j] for i in range(rank)) for j in range(k)]

    return lambda x, mask, ids: _rows(x, mask, one)


def block(sizes, rank):
    """Chunks of `sizes` outputs, each normalised."""

    def one(row, there):
        result, start = [], 0
        for size in sizes:
            terms = _products([part[start : start + rank * size] for part in row], there)
            start += rank * size
            result += _normalized(
                [sum(terms[i * size + j] for i in range(rank)) for j in range(size)]
            )
        return result

    return lambda x, mask, ids: _rows(x, mask, one)


def mfh(rank):
    """x: [n, p, m, d]; the last stage's terms times the earlier ones, each stage normalised."""

    def mfh_rows(x, mask, ids):
        out = []
        for i in range(len(x)):
            there = [_there(mask, i, m) for m in range(x.shape[2])]
            carried, result = [1.0] * x.shape[-1], []
            for stage in x[i]:
                terms = _products(stage, there)
                carried = [c * t for c, t in zip(carried, terms, strict=True)]
                pooled = [
                    sum(carried[j * rank + f] for f in range(rank))
                    for j in range(len(carried) // rank)
                ]
                result += _normalized(pooled)
            out.append(result if any(there) else [0.0] * len(result))
        return np.array(out)

    return mfh_rows


def tucker(core, bias):
    def one(row, there):
        x, y = (row[m] if there[m] else np.ones(len(row[m])) for m in (0, 1))
        return [
            bias[k] + sum(core[i, j, k] * x[i] * y[j] for i in range(len(x)) for j in range(len(y)))
            for k in range(core.shape[2])
        ]

    return lambda x, mask, ids: _rows(x, mask, one)


def _with_one(row, there):
    return [[1.0, *(v if t else np.zeros(len(v)))] for v, t in zip(row, there, strict=True)]


def outer(x, mask, ids):
    def one(row, there):
        return [math.prod(entries) for entries in product(*_with_one(row, there))]

    return _rows(x, mask, one)


def low_rank(factors, weights, bias):
    """The full weight tensor of the paper's equation 6 against the outer product."""

    def one(row, there):
        vectors = _with_one(row, there)
        out = list(bias)
        for o in range(len(bias)):
            for index in product(*(range(len(v)) for v in vectors)):
                entry = math.prod(v[k] for v, k in zip(vectors, index, strict=True))
                weight = sum(
                    weights[r] * math.prod(f[r, k, o] for f, k in zip(factors, index, strict=True))
                    for r in range(len(weights))
                )
                out[o] += weight * entry
        return out

    return lambda x, mask, ids: _rows(x, mask, one)


def product_of_experts(eps):
    def one(row, there):
        d = len(row[0]) // 2
        means, log_variances = [], []
        for k in range(d):
            precisions, mean = [1 / (1 + eps)], 0.0
            for m in range(len(row)):
                if there[m]:
                    precisions.append(1 / (math.exp(row[m][d + k]) + eps))
                    mean += precisions[-1] * row[m][k]
            total = sum(precisions)
            means.append(mean / total)
            log_variances.append(math.log(1 / total))
        return means + log_variances

    return lambda x, mask, ids: _rows(x, mask, one)


def mixture_of_experts():
    def one(row, there):
        d, kept = len(row[0]) // 2, [m for m in range(len(row)) if there[m]]
        means, log_variances = [], []
        for k in range(d):
            count = max(len(kept), 1)
            mean = sum(row[m][k] for m in kept) / count
            second = sum(math.exp(row[m][d + k]) + row[m][k] ** 2 for m in kept) / count
            means.append(mean)
            log_variances.append(math.log(second - mean**2 or 1.0))
        return means + log_variances

    return lambda x, mask, ids: _rows(x, mask, one)


def multiplicative(W, U, V, b, form):
    def one(row, there):
        x, y = (row[m] if there[m] else np.zeros(len(row[m])) for m in (0, 1))
        n, m = len(x), len(y)
        if form == "matrix":
            return [
                b[o]
                + sum(x[i] * y[j] * W[i, j, o] for i in range(n) for j in range(m))
                + sum(x[i] * U[i, o] for i in range(n))
                + sum(y[j] * V[j, o] for j in range(m))
                for o in range(len(b))
            ]
        if form == "vector":
            return [
                (sum(x[i] * W[i, j] for i in range(n)) + V[j]) * y[j]
                + sum(x[i] * U[i, j] for i in range(n))
                + b[j]
                for j in range(m)
            ]
        scale = sum(x[i] * W[i] for i in range(n)) + V[0]
        return [scale * y[j] + sum(x[i] * U[i] for i in range(n)) + b[0] for j in range(m)]

    return lambda x, mask, ids: _rows(x, mask, one)


def layer_norm(scale, bias, eps):
    def rows(x, mask, ids):
        out = []
        for row in x:
            mean = sum(row) / len(row)
            deviation = math.sqrt(sum((v - mean) ** 2 for v in row) / len(row) + eps)
            out.append(
                [(v - mean) / deviation * s + b for v, s, b in zip(row, scale, bias, strict=True)]
            )
        return np.array(out)

    return rows
