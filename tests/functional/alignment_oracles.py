"""Losses of alignment as plain float64 loops, written from the papers; slow and obvious."""

import math
from itertools import combinations

import numpy as np


def _rows(mask, *arrays):
    """The kept rows alone: an absent row is as if it were not in the batch."""
    n = len(arrays[0])
    kept = [i for i in range(n) if mask is None or mask[i]]
    return kept, [x[kept] for x in arrays]


def _spread(kept, n, values):
    out = np.zeros(n)
    out[kept] = values
    return out


def _huber(x, delta=1.0):
    return 0.5 * x * x if abs(x) <= delta else delta * (abs(x) - 0.5 * delta)


def _normalized(x):
    return np.stack([row / (math.sqrt(float(row @ row)) or 1.0) for row in x])


def huber(delta):
    def loss(a, b, mask, ids):
        return np.array(
            [
                sum(_huber(float(p - q), delta) for p, q in zip(x, y, strict=True)) / len(x)
                for x, y in zip(a, b, strict=True)
            ]
        )

    return loss


def centroid_uniformity(a, b, mask, ids, *, t=2.0):
    _, (a, b) = _rows(mask, a, b)
    x = _normalized((a + b) / 2)
    terms = [math.exp(-t * float((p - q) @ (p - q))) for p, q in combinations(x, 2)]
    return math.log(sum(terms) / len(terms)) if terms else 0.0


def _covariance(x, y, ddof):
    out = np.zeros((x.shape[1], y.shape[1]))
    for i in range(len(x)):
        out += np.outer(x[i] - x.mean(0), y[i] - y.mean(0))
    return out / max(len(x) - ddof, 1)


def vicreg(a, b, mask, ids):
    _, (a, b) = _rows(mask, a, b)
    n, d = a.shape
    invariance = sum((a[i, k] - b[i, k]) ** 2 for i in range(n) for k in range(d)) / (n * d)
    variance = covariance = 0.0
    for z in (a, b):
        c = _covariance(z, z, 1)
        variance += sum(max(0.0, 1 - math.sqrt(c[k, k] + 1e-4)) for k in range(d)) / d / 2
        covariance += sum(c[k, l] ** 2 for k in range(d) for l in range(d) if k != l) / d
    return 25 * invariance + 25 * variance + covariance


def barlow_twins(*, ddof=0, pooled=False, weight=5e-3):
    def loss(a, b, mask, ids):
        _, (a, b) = _rows(mask, a, b)
        n, d = a.shape
        both = np.concatenate([a, b])
        x, y = (
            (z - s.mean(0)) / np.sqrt(s.var(0, ddof=ddof) + 1e-5)
            for z, s in ((a, both if pooled else a), (b, both if pooled else b))
        )
        total = 0.0
        for k in range(d):
            for l in range(d):
                c = sum(x[i, k] * y[i, l] for i in range(n)) / n
                total += (1 - c) ** 2 if k == l else weight * c**2
        return total

    return loss


def _inverse_root(x):
    values, vectors = np.linalg.eigh(x)
    return vectors @ np.diag(values**-0.5) @ vectors.T


def cca(*, ridge, power):
    """Minus the sum of powers of the canonical correlations of all pairs, by symmetric roots."""

    def loss(*args):
        *views, mask, _ = args
        _, views = _rows(mask, *views)
        total = 0.0
        for x, y in combinations(views, 2):
            left, right = (
                _inverse_root(_covariance(z, z, 1) + ridge * np.eye(z.shape[1])) for z in (x, y)
            )
            rho = np.linalg.svd(left @ _covariance(x, y, 1) @ right, compute_uv=False)
            total -= sum(r**power for r in rho)
        return total

    return loss


def gcca(*, ridge, components):
    def loss(*args):
        *views, mask, _ = args
        _, views = _rows(mask, *views)
        total = 0.0
        for x in views:
            c = _covariance(x, x, 1) + ridge * np.eye(x.shape[1])
            centered = x - x.mean(0)
            total = total + centered @ np.linalg.inv(c) @ centered.T / (len(x) - 1)
        return -sum(sorted(np.linalg.eigvalsh(total))[-components:])

    return loss


def eckart_young(*args):
    *views, mask, _ = args
    _, views = _rows(mask, *views)
    cross = sum(_covariance(x, y, 1) for x in views for y in views) / len(views)
    within = sum(_covariance(x, x, 1) for x in views) / len(views)
    return -2 * np.trace(cross) + np.trace(within @ within)


def _gram(x, kernel, bandwidth):
    n = len(x)
    if kernel == "linear":
        return np.array([[float(x[i] @ x[j]) for j in range(n)] for i in range(n)])
    squares = np.array([[float((p - q) @ (p - q)) for q in x] for p in x])
    variance = (
        np.median([squares[i, j] for i in range(n) for j in range(n) if i != j])
        if bandwidth is None
        else bandwidth**2
    )
    return np.exp(-squares / (2 * variance))


def _hsic(k, l, debiased):
    n = len(k)
    if not debiased:
        h = np.eye(n) - 1 / n
        return np.trace(k @ h @ l @ h) / (n - 1) ** 2
    if n < 4:
        return 0.0
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
    one = np.ones(n)
    total = np.trace(k @ l) + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return (total - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))


def hsic(*, kernel="linear", bandwidth=None, debiased=False):
    def value(a, b, mask, ids):
        _, (a, b) = _rows(mask, a, b)
        return _hsic(_gram(a, kernel, bandwidth), _gram(b, kernel, bandwidth), debiased)

    return value


def cka(*, kernel="linear", bandwidth=None, debiased=False):
    def value(a, b, mask, ids):
        _, (a, b) = _rows(mask, a, b)
        k, l = _gram(a, kernel, bandwidth), _gram(b, kernel, bandwidth)
        scale = math.sqrt(_hsic(k, k, debiased) * _hsic(l, l, debiased))
        return _hsic(k, l, debiased) / scale if scale else 0.0

    return value


def cross_modal(a, b, mask, ids):
    kept, (x, y) = _rows(mask, a, b)
    n = len(x)
    rows = [sum((float(x[i] @ y[j]) - float(x[j] @ y[i])) ** 2 for j in range(n)) for i in range(n)]
    return _spread(kept, len(a), rows)


def in_modal(a, b, mask, ids):
    kept, (x, y) = _rows(mask, a, b)
    n = len(x)
    rows = [sum((float(x[i] @ x[j]) - float(y[i] @ y[j])) ** 2 for j in range(n)) for i in range(n)]
    return _spread(kept, len(a), rows)


def similarity_matching(a, b, mask, ids):
    kept, (x, y) = _rows(mask, a, b)
    n = len(x)
    rows = [
        np.mean([(float(x[i] @ x[j]) - float(y[i] @ y[j])) ** 2 for j in range(n) if j != i])
        for i in range(n)
    ]
    return _spread(kept, len(a), rows)


def relational_distance(a, b, mask, ids):
    kept, views = _rows(mask, a, b)
    n = len(kept)
    relative = []
    for x in views:
        d = np.array([[math.sqrt(float((p - q) @ (p - q))) for q in x] for p in x])
        relative.append(d / np.mean([d[i, j] for i in range(n) for j in range(n) if i != j]))
    rows = [
        sum(_huber(relative[0][i, j] - relative[1][i, j]) for j in range(n)) / n for i in range(n)
    ]
    return _spread(kept, len(a), rows)


def _cosine_at(x, i, j, k):
    p, q = x[i] - x[j], x[k] - x[j]
    size = math.sqrt(float(p @ p)) * math.sqrt(float(q @ q))
    return float(p @ q) / size if size else 0.0


def relational_angle(a, b, mask, ids):
    kept, (x, y) = _rows(mask, a, b)
    n = len(kept)
    rows = [
        sum(
            _huber(_cosine_at(x, i, j, k) - _cosine_at(y, i, j, k))
            for i in range(n)
            for k in range(n)
        )
        / n**2
        for j in range(n)
    ]
    return _spread(kept, len(a), rows)


def _softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def similarity_distillation(*, scale, teacher_scale, subtract_entropy):
    def loss(a, b, s, t, mask, ids):
        kept, (x, y, u, v) = _rows(mask, a, b, s, t)
        rows = np.zeros(len(kept))
        for student, teacher in (
            (scale * x @ y.T, teacher_scale * u @ v.T),
            (scale * y @ x.T, teacher_scale * v @ u.T),
        ):
            for i in range(len(kept)):
                p, q = _softmax(teacher[i]), _softmax(student[i])
                for j in range(len(kept)):
                    rows[i] -= p[j] * math.log(q[j]) / 2
                    if subtract_entropy:
                        rows[i] += p[j] * math.log(p[j]) / 2
        return _spread(kept, len(a), rows)

    return loss


def procrustes(*, reflection=True, center=False):
    def loss(a, b, mask, ids):
        kept, (x, y) = _rows(mask, a, b)
        if center:
            x, y = x - x.mean(0), y - y.mean(0)
        u, s, vt = np.linalg.svd(x.T @ y)
        signs = np.ones_like(s)
        if not reflection and np.linalg.det(u @ vt) < 0:
            signs[-1] = -1
        rotation = u @ np.diag(signs) @ vt
        rows = [float((p @ rotation - q) @ (p @ rotation - q)) for p, q in zip(x, y, strict=True)]
        return _spread(kept, len(a), rows)

    return loss
