"""Transport as its papers write it: scalings instead of potentials, loops instead of matrices."""

import math

import numpy as np


def kept(x, mask):
    return x if mask is None else x[mask]


def squared_distances(a, b):
    return np.array([[sum((p - q) ** 2 for p, q in zip(x, y, strict=True)) for y in b] for x in a])


def cosine_distances(a, b):
    def cosine(x, y):
        return sum(x * y) / math.sqrt(sum(x * x)) / math.sqrt(sum(y * y))

    return np.array([[1 - cosine(x, y) for y in b] for x in a])


def divergence(p, q):
    return np.sum(p * np.log(p / q) - p + q)


def balanced(cost, a, b, epsilon, sweeps=3000):
    """Cuturi, 2013, algorithm 1: the plan and the regularised cost."""
    kernel = np.exp(-cost / epsilon)
    v = np.ones(len(b))
    for _ in range(sweeps):
        u = a / (kernel @ v)
        v = b / (kernel.T @ u)
    plan = u[:, None] * kernel * v[None, :]
    return plan, np.sum(plan * cost) + epsilon * divergence(plan, np.outer(a, b))


def unbalanced(cost, a, b, epsilon, rho, reference, sweeps=3000):
    """Chizat et al., 2016, algorithm 1."""
    kernel = np.exp(-cost / epsilon) * reference
    v = np.ones(len(b))
    for _ in range(sweeps):
        u = (a / (kernel @ v)) ** (rho / (rho + epsilon))
        v = (b / (kernel.T @ u)) ** (rho / (rho + epsilon))
    plan = u[:, None] * kernel * v[None, :]
    missed = divergence(plan.sum(axis=1), a) + divergence(plan.sum(axis=0), b)
    value = np.sum(plan * cost) + epsilon * divergence(plan, reference)
    return plan, value + rho * missed


def partial(cost, a, b, epsilon, mass, reference, sweeps=3000):
    """Benamou et al., 2015, section 5: Dykstra's projections onto three convex sets."""
    plan = np.exp(-cost / epsilon) * reference
    corrections = [np.ones_like(plan) for _ in range(3)]
    projections = (
        lambda p: np.minimum(a / p.sum(axis=1), 1)[:, None] * p,
        lambda p: np.minimum(b / p.sum(axis=0), 1)[None, :] * p,
        lambda p: mass / p.sum() * p,
    )
    for _ in range(sweeps):
        for i, project in enumerate(projections):
            before = plan * corrections[i]
            plan = project(before)
            corrections[i] = before / plan
    return plan, np.sum(plan * cost) + epsilon * divergence(plan, reference)


def uniform(n):
    return np.full(n, 1 / n)


def regularised(method, epsilon, distances=squared_distances):
    """The regularised cost between the kept rows, at a multiple of the mean cost."""

    def oracle(x, y, mask, ids):
        x, y = kept(x, mask), kept(y, mask)
        cost = distances(x, y)
        return method(cost, uniform(len(x)), uniform(len(y)), epsilon, cost.mean())

    return oracle


def sinkhorn(cost, a, b, epsilon, unit):
    return balanced(cost, a, b, epsilon * unit)[1]


def unbalanced_sinkhorn(cost, a, b, epsilon, unit):
    return unbalanced(cost, a, b, epsilon * unit, 0.7 * unit, np.outer(a, b))[1]


def entropy_sinkhorn(cost, a, b, epsilon, unit):
    return unbalanced(cost, a, b, epsilon * unit, 0.7 * unit, np.ones_like(cost))[1]


def partial_sinkhorn(cost, a, b, epsilon, unit):
    return partial(cost, a, b, epsilon * unit, 0.6, np.ones_like(cost))[1]


def sinkhorn_divergence(x, y, mask, ids):
    x, y = kept(x, mask), kept(y, mask)
    a = uniform(len(x))
    epsilon = 0.5 * squared_distances(x, y).mean()
    xy, xx, yy = (
        balanced(squared_distances(*pair), a, a, epsilon)[1] for pair in ((x, y), (x, x), (y, y))
    )
    return xy - (xx + yy) / 2


def transport_features(plan, values, mask, ids):
    out = np.zeros((len(plan), values.shape[1]))
    for i in range(len(plan)):
        weights = [(abs(plan[i, j]), j) for j in range(len(values)) if mask is None or mask[j]]
        total = sum(w for w, _ in weights)
        for w, j in weights:
            out[i] += w * values[j] / total
    return out


def gromov(x, y, mask, ids, *, epsilon=2.0, outer=100):
    """Peyré et al., 2016, equation 8 with the factor 2 that proposition 2 misses."""
    x, y = kept(x, mask), kept(y, mask)
    first, second = squared_distances(x, x), squared_distances(y, y)
    n = len(x)
    a = uniform(n)
    loss = (first[:, None, :, None] - second[None, :, None, :]) ** 2
    plan = np.outer(a, a)
    scale = epsilon * 2 * np.einsum("ijkl,kl->ij", loss, plan).mean()
    for _ in range(outer):
        plan, _ = balanced(2 * np.einsum("ijkl,kl->ij", loss, plan), a, a, scale, sweeps=50)
    value = np.einsum("ijkl,ij,kl->", loss, plan, plan)
    return value + scale * divergence(plan, np.outer(a, a))
