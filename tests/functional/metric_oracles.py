"""Measures of representations as their papers write them, in loops."""

import math

import numpy as np


def kept(x, mask):
    return x if mask is None else x[mask]


def distribution_gap(a, b, mask, ids):
    a, b = kept(a, mask), kept(b, mask)
    total = 0.0
    for i in range(len(a)):
        total += sum(((a[i] - a.mean(axis=0)) - (b[i] - b.mean(axis=0))) ** 2)
    return math.sqrt(total / len(a))


def effective_rank(x, mask, ids):
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(kept(x, mask).T @ kept(x, mask)), 0))
    shares = values[values > 1e-7] / values.sum()
    return math.exp(-sum(p * math.log(p) for p in shares))


def neighbours(kernel, i, k, *, itself=False):
    others = [j for j in range(len(kernel)) if itself or j != i]
    return sorted(others, key=lambda j: (-kernel[i, j], j))[:k]


def mutual_knn(a, b, k):
    first, second = a @ a.T, b @ b.T
    shared = [set(neighbours(first, i, k)) & set(neighbours(second, i, k)) for i in range(len(a))]
    return np.mean([len(s) / k for s in shared])


def hsic(x, y):
    n = len(x)
    centering = np.eye(n) - 1 / n
    return np.trace(x @ centering @ y @ centering)


def hsic_debiased(x, y):
    """Song et al., 2012, equation 5."""
    n = len(x)
    x, y = x - np.diag(np.diag(x)), y - np.diag(np.diag(y))
    ones = np.ones(n)
    value = np.trace(x @ y) + x.sum() * y.sum() / ((n - 1) * (n - 2))
    return (value - 2 * ones @ x @ y @ ones / (n - 2)) / (n * (n - 3))


def cknna(a, b, k, *, debiased):
    first, second = a @ a.T, b @ b.T
    measure = hsic_debiased if debiased else hsic

    def near(kernel):
        mask = np.zeros(kernel.shape)
        for i in range(len(kernel)):
            mask[i, neighbours(kernel, i, k, itself=not debiased)] = 1
        return mask

    x, y = near(first), near(second)
    own = measure(x * first, x * first) * measure(y * second, y * second)
    return measure(x * y * first, x * y * second) / math.sqrt(own)


def biased_cknna(a, b, mask, ids):
    return cknna(kept(a, mask), kept(b, mask), 3, debiased=False)


def class_embeddings(prompts, mask, ids):
    out = np.zeros((len(prompts), prompts.shape[2]))
    for c in range(len(prompts)):
        chosen = [p for p in range(prompts.shape[1]) if mask is None or mask[c, p]]
        for p in chosen:
            out[c] += prompts[c, p] / math.sqrt(sum(prompts[c, p] ** 2)) / len(chosen)
        length = math.sqrt(sum(out[c] ** 2))
        out[c] /= length if length else 1
    return out
