"""What a report shows of single records: queries with their answers, and a sample to compare."""

import base64
import dataclasses
import io
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from datarax.train.characters import Characters

_ANSWERS = 5
_PHOTO = 96  # pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """One retrieved record; `is_right` marks the one that was asked for. "" is no picture."""

    rank: int
    score: float
    name: str
    picture: str
    is_right: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Query:
    """A query, its best answers, and the right one where it is not among them."""

    name: str
    picture: str
    answers: tuple[Answer, ...]
    missed: Answer | None

    @property
    def is_hit(self) -> bool:
        """Whether the first answer is right."""
        return self.answers[0].is_right


def gallery(
    similarity: np.ndarray,
    is_right: np.ndarray,
    found: Characters,
    *,
    kind: Literal["hits", "misses"],
    count: int,
) -> list[Query]:
    """`count` queries, evenly spread over those whose first answer is right (or is not).

    Args:
      similarity: queries by targets, [n, n], both in the order of `found`.
      is_right: which target answers which query, bool [n, n].
      found: the records.
      kind: which queries.
      count: how many at most.
    """
    order = np.argsort(-similarity, axis=1, kind="stable")
    first_right = is_right[np.arange(len(order)), order[:, 0]]
    rows = np.flatnonzero(first_right if kind == "hits" else ~first_right)
    if len(rows) > count:
        rows = rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]
    return [
        _query(row, found, order=order[row], scores=similarity[row], is_right=is_right[row])
        for row in rows.tolist()
    ]


def sample_by_script(scripts: Sequence[str], *, groups: int, each: int) -> np.ndarray:
    """Rows of at most `each` records of the most frequent scripts, script by script: int [k]."""
    frequent = [name for name, _ in Counter(scripts).most_common(groups)]
    members = [[i for i, script in enumerate(scripts) if script == name] for name in frequent]
    taken = [rows[:: max(1, len(rows) // each)][:each] for rows in members]
    return np.array([row for rows in taken for row in rows], dtype=int)


def picture_uri(image: np.ndarray) -> str:
    """A data URI of a PNG: black ink of opacity `image`, uint8 [h, w]."""
    ink = Image.merge("LA", (Image.new("L", image.shape[::-1]), Image.fromarray(image)))
    content = io.BytesIO()
    ink.save(content, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def photo_uri(image: np.ndarray) -> str:
    """A data URI of a JPEG of at most 96 pixels a side, from uint8 [h, w] or [h, w, 3]."""
    photo = Image.fromarray(image)
    photo.thumbnail((_PHOTO, _PHOTO))
    content = io.BytesIO()
    photo.save(content, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _picture(found: Characters, row: int) -> str:
    if found.images is None:
        return ""
    return picture_uri(found.images[row]) if found.scripts else photo_uri(found.images[row])


def _query(
    row: int, found: Characters, *, order: np.ndarray, scores: np.ndarray, is_right: np.ndarray
) -> Query:
    def answer(place: int) -> Answer:
        target = int(order[place])
        return Answer(
            rank=place + 1,
            score=float(scores[target]),
            name=found.names[target],
            picture=_picture(found, target),
            is_right=bool(is_right[target]),
        )

    right = int(np.flatnonzero(is_right[order])[0])
    return Query(
        name=found.names[row],
        picture=_picture(found, row),
        answers=tuple(answer(place) for place in range(min(_ANSWERS, len(order)))),
        missed=answer(right) if right >= _ANSWERS else None,
    )
