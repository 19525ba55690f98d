"""The baseline that a trained model has to beat: ridge regression between fixed features."""

import dataclasses
import zlib

import numpy as np

from datarax.train.retrieval import recalls, retrieval_metrics

NAME_FEATURES = 1024
PENALTIES = tuple(10.0**power for power in range(-3, 4))


@dataclasses.dataclass(frozen=True)
class Held:
    """Records that a fit does not see: features [m, d] and [m, e], and which target is right."""

    queries: np.ndarray
    targets: np.ndarray
    relevant: np.ndarray


def features(field: str, column: np.ndarray) -> np.ndarray:
    """Fixed features of a field: float64 [n, d].

    Pixels in [0, 1]; coordinates; the words and three-letter pieces of a name, hashed into 1024
    counts of which the square root is scaled to unit length.
    """
    if field == "name":
        counts = np.sqrt(np.stack([_count_pieces(bytes(row)) for row in column]))
        return _unit(counts)
    flat = column.reshape(len(column), -1).astype(np.float64)
    return flat / 255 if column.dtype == np.uint8 else flat


def _count_pieces(name: bytes) -> np.ndarray:
    words = [b"<" + word + b">" for word in name.rstrip(b"\0").split()]
    pieces = [word[i : i + 3] for word in words for i in range(len(word) - 2)]
    slots = [zlib.crc32(piece) % NAME_FEATURES for piece in words + pieces]
    return np.bincount(slots, minlength=NAME_FEATURES).astype(np.float64)


@dataclasses.dataclass(frozen=True)
class Ridge:
    r"""$\hat y = (x - \bar x) W$ with $W = (X^\top X + \lambda I)^{-1} X^\top Y$, both centred.

    One decomposition of `X` serves every target and penalty.
    """

    centred: np.ndarray
    mean: np.ndarray
    basis: np.ndarray
    variances: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray) -> "Ridge":
        """On training features [n, d]."""
        mean = x.mean(axis=0)
        variances, basis = np.linalg.eigh((x - mean).T @ (x - mean))
        return cls(x - mean, mean, basis, np.maximum(variances, 0))

    def recalls(self, y: np.ndarray, *, validation: Held, test: Held) -> dict[str, float]:
        """Recall at 1, 5 and 10 on `test`, of the penalty that ranks best on `validation`.

        Best is the highest mean reciprocal rank. The score of a target is the cosine of what is
        predicted with it, both less the mean of `y` [n, e], the targets of the training features.
        """
        mean = y.mean(axis=0)
        products = self.basis.T @ (self.centred.T @ (y - mean))

        def scores(held: Held, penalty: float) -> np.ndarray:
            turned = ((held.queries - self.mean) @ self.basis) / (self.variances + penalty)
            return _unit(turned @ products) @ _unit(held.targets - mean).T

        def validated(penalty: float) -> float:
            metrics = retrieval_metrics(scores(validation, penalty), validation.relevant)
            return metrics["mrr"]

        best = max(PENALTIES, key=validated)
        return recalls(scores(test, best), test.relevant)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
