"""The same quantities as plain float64 loops, written from the papers; slow and obvious."""

import math

import numpy as np


def _kept(mask, n):
    return [i for i in range(n) if mask is None or mask[i]]


def _lse(values):
    peak = max(values)
    return peak + math.log(sum(math.exp(v - peak) for v in values))


def info_nce(a, b, mask, ids, *, scale, bias=0.0, directions="both", smoothing=0.0):
    n = len(a)
    kept = _kept(mask, n)
    out = np.zeros(n)
    for i in kept:
        positives = [j for j in kept if (j == i if ids is None else ids[j] == ids[i])]
        terms = []
        for direction, (x, y) in {"a_to_b": (a, b), "b_to_a": (b, a)}.items():
            if directions not in ("both", direction):
                continue
            logits = {j: scale * float(x[i] @ y[j]) + bias for j in kept}
            target = {j: smoothing / len(kept) for j in kept}
            for p in positives:
                target[p] += (1 - smoothing) / len(positives)
            normaliser = _lse(list(logits.values()))
            terms.append(-sum(target[j] * (logits[j] - normaliser) for j in kept))
        out[i] = sum(terms) / len(terms)
    return out


def sigmoid(a, b, mask, ids, *, scale, bias):
    n = len(a)
    kept = _kept(mask, n)
    out = np.zeros(n)
    for i in kept:
        for j in kept:
            positive = i == j if ids is None else ids[i] == ids[j]
            z = 1 if positive else -1
            out[i] += math.log1p(math.exp(-z * (scale * float(a[i] @ b[j]) + bias)))
    return out


def pairwise(x, mask, ids, *, loss, pairs):
    n, m, _ = x.shape
    mask = np.ones((n, m), bool) if mask is None else mask
    total, count = np.zeros(n), np.zeros(n)
    for k in range(m):
        for l in range(k + 1, m):
            if pairs == "anchor" and k != 0:
                continue
            both = mask[:, k] & mask[:, l]
            total += loss(x[:, k], x[:, l], both, ids)
            count += both
    return np.array([t / c if c else 0.0 for t, c in zip(total, count, strict=True)])


def normalize(x, mask, ids):
    return np.array([row / math.sqrt(sum(v * v for v in row)) for row in x])


def norm(x, mask, ids):
    return np.array([math.sqrt(sum(v * v for v in row)) for row in x])


def mean(x, mask, ids):
    return np.array(
        [
            np.mean([row[k] for k in kept]) if kept else 0.0
            for row, kept in _rows_with_slots(x, mask)
        ]
    )


def logsumexp(x, mask, ids):
    return np.array(
        [_lse([row[k] for k in kept]) if kept else 0.0 for row, kept in _rows_with_slots(x, mask)]
    )


def softmax(x, mask, ids):
    out = np.zeros_like(x)
    for i, (row, kept) in enumerate(_rows_with_slots(x, mask)):
        for k in kept:
            out[i, k] = math.exp(row[k]) / sum(math.exp(row[l]) for l in kept)
    return out


def _rows_with_slots(x, mask):
    return [(row, _kept(None if mask is None else mask[i], len(row))) for i, row in enumerate(x)]


def cosine(a, b, mask, ids):
    return np.array(
        [
            sum(u * v for u, v in zip(p, q, strict=True))
            / math.sqrt(sum(u * u for u in p) * sum(v * v for v in q))
            for p, q in zip(a, b, strict=True)
        ]
    )


def pairwise_matrix(entry):
    def matrix(a, b, mask, ids):
        return np.array([[entry(p, q) for q in b] for p in a])

    return matrix


def squared_error(a, b, mask, ids):
    return np.array(
        [
            np.mean([(u - v) ** 2 for u, v in zip(p, q, strict=True)])
            for p, q in zip(a, b, strict=True)
        ]
    )


def power_distance(power):
    def distance(a, b, mask, ids):
        return np.array([math.dist(p, q) ** power for p, q in zip(a, b, strict=True)])

    return distance


def uniformity(x, mask, ids, *, t=2.0):
    kept = _kept(mask, len(x))
    terms = [math.exp(-t * math.dist(x[i], x[j]) ** 2) for i in kept for j in kept if i != j]
    return math.log(sum(terms) / len(terms)) if terms else 0.0


def gap(a, b, mask, ids):
    kept = _kept(mask, len(a))
    if not kept:
        return 0.0
    centre_a = [sum(a[i][k] for i in kept) / len(kept) for k in range(a.shape[1])]
    centre_b = [sum(b[i][k] for i in kept) / len(kept) for k in range(b.shape[1])]
    return math.dist(centre_a, centre_b)


def attention(query, key, value, mask, ids):
    n, t, h, d = query.shape
    out = np.zeros((n, t, h, value.shape[-1]))
    for i in range(n):
        kept = _kept(None if mask is None else mask[i], key.shape[1])
        for j in range(t):
            for head in range(h):
                logits = [float(query[i, j, head] @ key[i, s, head]) / math.sqrt(d) for s in kept]
                for logit, s in zip(logits, kept, strict=True):
                    weight = math.exp(logit) / sum(math.exp(other) for other in logits)
                    out[i, j, head] += weight * value[i, s, head]
    return out


def weighted_sum(x, weights, mask, ids):
    out = np.zeros((len(x), x.shape[-1]))
    for i in range(len(x)):
        for m in _kept(None if mask is None else mask[i], x.shape[1]):
            out[i] += weights[i, m] * x[i, m]
    return out


def attention_weighted_sum(x, scores, mask, ids):
    return weighted_sum(x, softmax(scores, mask, ids), mask, ids)


def gated_sum(kind):
    def gated(hidden, logits, mask, ids):
        out = np.zeros((len(hidden), hidden.shape[-1]))
        for i in range(len(hidden)):
            kept = _kept(None if mask is None else mask[i], hidden.shape[1])
            for k in range(hidden.shape[-1]):
                for m in kept:
                    own = math.exp(logits[i, m, k])
                    rest = (
                        1.0
                        if kind == "sigmoid"
                        else sum(math.exp(logits[i, l, k]) for l in kept if l != m)
                    )
                    out[i, k] += own / (own + rest) * math.tanh(hidden[i, m, k])
        return out

    return gated


def concatenate(x, mask, ids):
    rows = []
    for i in range(len(x)):
        kept = _kept(None if mask is None else mask[i], x.shape[1])
        rows.append(
            np.concatenate(
                [x[i, m] if m in kept else np.zeros(x.shape[2]) for m in range(x.shape[1])]
            )
        )
    return np.array(rows)
