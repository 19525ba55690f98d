"""The baselines that a trained model has to beat: ridge regression between fixed features.

The plain one is the textbook's: pixels, coordinates and words, penalty 1, the target nearest to
what is predicted. The tuned one has what was found to help: pieces of words, a penalty chosen on
validation, the cosine. It is much the stronger.
"""

import dataclasses
import zlib

import numpy as np

from datarax.train.retrieval import recalls, retrieval_metrics

NAME_FEATURES = 1024
PLAIN_PENALTY = 1.0
PENALTIES = tuple(10.0**power for power in range(-3, 4))


@dataclasses.dataclass(frozen=True)
class Held:
    """Records that a fit does not see: features [m, d] and [m, e], and which target is right."""

    queries: np.ndarray
    targets: np.ndarray
    relevant: np.ndarray


def features(field: str, column: np.ndarray, *, plain: bool = False) -> np.ndarray:
    """Fixed features of a field: float64 [n, d].

    Pixels in [0, 1]; coordinates; the words and three-letter pieces of a name, hashed into 1024
    counts of which the square root is scaled to unit length. The plain features of a name are
    counts of its words.
    """
    if field == "name" and plain:
        return np.stack([_count(bytes(row).rstrip(b"\0").split()) for row in column])
    if field == "name":
        counts = np.sqrt(np.stack([_count_pieces(bytes(row)) for row in column]))
        return _unit(counts)
    flat = column.reshape(len(column), -1).astype(np.float64)
    return flat / 255 if column.dtype == np.uint8 else flat


def _count_pieces(name: bytes) -> np.ndarray:
    words = [b"<" + word + b">" for word in name.rstrip(b"\0").split()]
    pieces = [word[i : i + 3] for word in words for i in range(len(word) - 2)]
    return _count(words + pieces)


def _count(pieces: list[bytes]) -> np.ndarray:
    slots = [zlib.crc32(piece) % NAME_FEATURES for piece in pieces]
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
        products = self._products(y)

        def scores(held: Held, penalty: float) -> np.ndarray:
            predicted = self._predicted(held.queries, products, penalty)
            return _unit(predicted) @ _unit(held.targets - mean).T

        def validated(penalty: float) -> float:
            metrics = retrieval_metrics(scores(validation, penalty), validation.relevant)
            return metrics["mrr"]

        best = max(PENALTIES, key=validated)
        return recalls(scores(test, best), test.relevant)

    def plain_recalls(self, y: np.ndarray, *, test: Held) -> dict[str, float]:
        """Recall at 1, 5 and 10 on `test` with penalty 1, by the distance to the prediction."""
        products = self._products(y)
        predicted = self._predicted(test.queries, products, PLAIN_PENALTY) + y.mean(axis=0)
        targets = test.targets
        scores = 2 * predicted @ targets.T - np.sum(targets**2, axis=1)
        return recalls(scores, test.relevant)

    def _products(self, y: np.ndarray) -> np.ndarray:
        return self.basis.T @ (self.centred.T @ (y - y.mean(axis=0)))

    def _predicted(self, queries: np.ndarray, products: np.ndarray, penalty: float) -> np.ndarray:
        turned = ((queries - self.mean) @ self.basis) / (self.variances + penalty)
        return turned @ products


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
