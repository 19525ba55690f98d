"""The contrastive losses as plain float64 loops, written from the papers; slow and obvious."""

import math
from itertools import product

import numpy as np
from functional_oracles import info_nce


def _kept(mask, n):
    return [i for i in range(n) if mask is None or mask[i]]


def _lse(values):
    peak = max(values)
    return peak + math.log(sum(math.exp(v - peak) for v in values))


def _cross_entropy(logits, target, denominator):
    """Both dicts by column; the target need not sum to one."""
    return sum(w * (_lse([logits[j] for j in denominator]) - logits[j]) for j, w in target.items())


def _same(ids, i, j):
    return i == j if ids is None else ids[i] == ids[j]


def _both_ways(a, b):
    return [(a, b), (b, a)]


def decoupled(a, b, mask, ids, *, scale):
    """InfoLOOB: the positives are no part of the denominator."""
    n = len(a)
    kept, out = _kept(mask, n), np.zeros(n)
    for i in kept:
        positives = [j for j in kept if _same(ids, i, j)]
        negatives = [j for j in kept if j not in positives]
        for x, y in _both_ways(a, b):
            if negatives:
                logits = {j: scale * float(x[i] @ y[j]) for j in kept}
                matched = sum(logits[p] for p in positives) / len(positives)
                out[i] += (_lse([logits[j] for j in negatives]) - matched) / 2
    return out


def halves(x, mask, ids, *, scale):
    """A row without one half has no loss, and its other half stays a negative."""
    n = len(x)
    mask = np.ones((n, 2), bool) if mask is None else mask
    out = np.zeros(n)
    for i in _kept(mask.all(axis=1), n):
        for own, other in ((0, 1), (1, 0)):
            logits = {j: scale * float(x[i, own] @ x[j, other]) for j in _kept(mask[:, other], n)}
            out[i] += _cross_entropy(logits, {i: 1.0}, list(logits)) / 2
    return out


def queued(a, b, more_a, more_b, mask, ids, *, scale):
    """Extra columns at n, n + 1, ...; those with the id of the row are positives."""
    n = len(a)
    out = np.zeros(n)
    for i in _kept(mask, n):
        for x, y, more in ((a, b, more_b), (b, a, more_a)):
            logits = {j: scale * float(x[i] @ y[j]) for j in _kept(mask, n)}
            logits |= {n + k: scale * float(x[i] @ more[k]) for k in _kept(mask, len(more))}
            positives = [j for j in logits if _same(ids, i, j % n)]
            target = {p: 1 / len(positives) for p in positives}
            out[i] += _cross_entropy(logits, target, list(logits)) / 2
    return out


def sigmoid_soft(a, b, mask, ids, *, scale, relative, high, low):
    n = len(a)
    kept, out = _kept(mask, n), np.zeros(n)
    for i in kept:
        for j in kept:
            match = 1 / (1 + math.exp(-scale * (float(a[i] @ b[j]) - relative)))
            y = high if _same(ids, i, j) else low
            out[i] -= y * math.log(match) + (1 - y) * math.log(1 - match)
    return out


def supervised(a, b, mask, ids, *, scale, soft=None, teach=None, share=0.0):
    """`soft` and `teach` map a pair of rows to the weight of the target, the teacher's logit."""
    n = len(a)
    contrasts = a if b is None else b
    out = np.zeros(n)
    for i in _kept(mask, n):
        columns = [j for j in _kept(mask, n) if b is not None or j != i]
        weight = soft or (lambda i, j: float(_same(ids, i, j)))
        weights = {j: weight(i, j) for j in columns}
        total = sum(weights.values())
        if total == 0:
            continue
        target = {j: w / total for j, w in weights.items()}
        if teach is not None:
            normaliser = _lse([teach(i, j) for j in columns])
            for j in columns:
                taught = math.exp(teach(i, j) - normaliser)
                target[j] = (1 - share) * target[j] + share * taught
        logits = {j: scale * float(a[i] @ contrasts[j]) for j in columns}
        out[i] = _cross_entropy(logits, target, columns)
    return out


def nt_xent(a, b, mask, ids, *, scale, without_positive=False):
    n = len(a)
    z = np.concatenate([a, b])
    kept = [v for v in range(2 * n) if mask is None or mask[v % n]]
    out = np.zeros(n)
    for v in kept:
        positive = (v + n) % (2 * n)
        logits = {k: scale * float(z[v] @ z[k]) for k in kept if k != v}
        denominator = [k for k in logits if not (without_positive and k == positive)]
        if denominator:
            out[v % n] += _cross_entropy(logits, {positive: 1.0}, denominator) / 2
    return out


def weighted_pairs(x, mask, ids, *, scales, weights):
    n = len(x)
    mask = np.ones((n, 3), bool) if mask is None else mask
    total, count = np.zeros(n), np.zeros(n)
    for (k, l), scale, weight in zip(((0, 1), (0, 2), (1, 2)), scales, weights, strict=True):
        both = mask[:, k] & mask[:, l]
        total += weight * info_nce(x[:, k], x[:, l], both, ids, scale=scale)
        count += weight * both
    return np.array([t / c if c else 0.0 for t, c in zip(total, count, strict=True)])


def _volume(vectors):
    gram = np.array([[float(u @ v) for u in vectors] for v in vectors])
    return math.sqrt(max(np.linalg.det(gram), 0))


def gram_volume(anchor, others, mask, ids):
    def entry(i, j):
        there = [k for k in range(others.shape[1]) if mask is None or mask[j, k]]
        return _volume([anchor[i], *(others[j, k] for k in there)])

    return np.array([[entry(i, j) for j in range(len(others))] for i in range(len(anchor))])


def _heron(a, b, c):
    u, v, w = (math.dist(*pair) for pair in ((a, b), (b, c), (a, c)))
    half = (u + v + w) / 2
    return math.sqrt(max(half * (half - u) * (half - v) * (half - w), 0))


def triangle_area(a, b, c, mask, ids, *, root=True):
    area = np.array([[_heron(x, y, z) for y, z in zip(b, c, strict=True)] for x in a])
    return area if root else 2 * area**2


def spanned(x, mask, ids, *, scale, shape, smoothing=0.0):
    """InfoNCE with minus the volume, or the area, of an anchor and the others as similarity."""
    n, count, _ = x.shape
    mask = np.ones((n, count), bool) if mask is None else mask
    enough = mask[:, 1:].any(axis=1) if shape == "volume" else mask.all(axis=1)
    kept, out = _kept(mask[:, 0] & enough, n), np.zeros(n)

    def logit(i, j):
        if shape == "volume":
            return -scale * _volume([x[i, 0], *(x[j, m] for m in range(1, count) if mask[j, m])])
        area = _heron(x[i, 0], x[j, 1], x[j, 2])
        return -scale * (area if shape == "triangle_root" else 2 * area**2)

    for i in kept:
        positives = [j for j in kept if _same(ids, i, j)]
        target = {j: smoothing / len(kept) for j in kept}
        for p in positives:
            target[p] += (1 - smoothing) / len(positives)
        rows = {j: logit(i, j) for j in kept}
        columns = {j: logit(j, i) for j in kept}
        out[i] = sum(_cross_entropy(logits, target, kept) for logits in (rows, columns)) / 2
    return out


def symile(x, mask, ids, *, scale):
    n, count, _ = x.shape
    mask = np.ones((n, count), bool) if mask is None else mask
    kept, out = _kept(mask.all(axis=1), n), np.zeros(n)
    for i in kept:
        for m in range(count):
            logits = {}
            for t in product(kept, repeat=count):
                if t[m] == i:
                    rows = [x[row, modality] for modality, row in enumerate(t)]
                    logits[t] = scale * float(np.prod(rows, axis=0).sum())
            out[i] += _cross_entropy(logits, {(i,) * count: 1.0}, list(logits)) / count
    return out


def triplet(a, b, mask, ids, *, margin, mining, score=np.dot, directions="both"):
    n = len(a)
    kept, out = _kept(mask, n), np.zeros(n)
    sides = {"a_to_b": [(a, b)], "b_to_a": [(b, a)], "both": _both_ways(a, b)}[directions]
    for i in kept:
        for x, y in sides:
            own = float(score(x[i], y[i]))
            others = [float(score(x[i], y[j])) for j in kept if not _same(ids, i, j)]
            if mining == "hard":
                own = min(float(score(x[i], y[j])) for j in kept if _same(ids, i, j))
            if mining == "semi_hard":
                others = [s for s in others if s < own]
            if mining != "sum":
                others = [max(others)] if others else []
            out[i] += sum(max(margin - own + s, 0) for s in others) / len(sides)
    return out


def late_interaction(a, b, mask, ids, *, reduction="mean"):
    def entry(i, j):
        tokens = [t for t in range(a.shape[1]) if mask is None or mask[i, t]]
        others = [s for s in range(b.shape[1]) if mask is None or mask[j, s]]
        if not tokens or not others:
            return 0.0
        best = [max(float(a[i, t] @ b[j, s]) for s in others) for t in tokens]
        return sum(best) / (len(best) if reduction == "mean" else 1)

    return np.array([[entry(i, j) for j in range(len(b))] for i in range(len(a))])


def filip(a, b, mask, ids, *, scale):
    """Each direction's own matrix: the best text token of a patch is another than the reverse."""
    n, out = len(a), np.zeros(len(a))
    for x, y in _both_ways(a, b):
        logits = scale * late_interaction(x, y, mask, ids)
        kept = [i for i in range(n) if mask is None or mask[i].any()]
        for i in kept:
            row = {j: logits[i, j] for j in kept}
            out[i] += _cross_entropy(row, {i: 1.0}, kept) / 2
    return out
