"""Search among all characters of a run, by a description or by a picture."""

import dataclasses
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datarax.sources.decode_image import ImageDecoder
from datarax.sources.decode_text import TextDecoder
from datarax.sources.glyph_drawing import NAME_BYTES, encode_name
from datarax.sources.record import DecodeError
from datarax.train.characters import Characters, TrainedRun, character_of, characters
from datarax.train.config import FUSED, GLYPH_FUSED, GLYPHS
from datarax.train.files import write_file
from datarax.train.query_image import placements, read_image
from datarax.train.towers import columns_of, fields_of_config, masked_towers

_COLUMNS = 5
_CELL = (1.9, 2.3)  # inches, with the caption
_SIDE = 1.35


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hit:
    """One answer: its rank from 1, cosine similarity, name, and picture.

    A picture is ink uint8 [32, 32] of a character, else uint8 [h, w] or [h, w, 3]; `None` is none.
    """

    rank: int
    score: float
    name: str
    image: np.ndarray | None
    is_ink: bool = True

    @property
    def character(self) -> str | None:
        """The character itself, where its name is a Unicode name."""
        return character_of(self.name)


def search(
    run: TrainedRun,
    *,
    text: str | None = None,
    image: str | Path | None = None,
    top: int = 10,
) -> list[Hit]:
    """The `top` records of all splits that are most similar, best first.

    Args:
      run: a trained run.
      text: a description, compared with the pictures and outlines; with all other towers of shards.
      image: a PNG or JPEG file of one character, compared with the names; with all other towers of
        shards, of which it may be any picture.
      top: how many, at least 1.

    Raises:
      ValueError: unless exactly one query is given, if the text is empty or too long or the file
        is no picture, or if the run has no tower for the query.
      OSError: if the file cannot be read.
    """
    if (text is None) == (image is None):
        raise ValueError("expected either text or image")
    if top < 1:
        raise ValueError(f"top: expected at least 1, got {top}")
    if run.config.data != GLYPHS:
        return _search_shards(run, (text or "") if image is None else Path(image), top=top)
    field = "image" if text is None else "name"
    if field not in run.config.towers:
        raise ValueError(f"the run has no tower for {field!r}; it has {list(run.config.towers)}")
    found = characters(run, "all")
    assert found.images is not None
    if image is None:
        query = query_name(text or "")[None]
    else:  # of several ways to place it, the best counts
        query = placements(read_image(Path(image)), found.images)
    scores = (run.embed(field, query) @ _targets(run, found, query=field).T).max(axis=0)
    best = np.argsort(-scores, kind="stable")[:top]
    return [
        Hit(rank=rank, score=float(scores[i]), name=found.names[i], image=found.images[i])
        for rank, i in enumerate(best, 1)
    ]


def draw_hits(hits: Sequence[Hit], path: Path) -> Path:
    """Writes a PNG of the hits with names and scores, and returns its path.

    Raises:
      ValueError: if there are no hits.
      OSError: if it cannot be written.
    """
    if not hits:
        raise ValueError("expected at least one hit to draw")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(hits))
    rows = -(-len(hits) // columns)
    width, height = columns * _CELL[0], rows * _CELL[1]
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    for place, hit in enumerate(hits):
        row, column = divmod(place, columns)
        # Fixed places: a layout engine would let long captions run into the next row.
        left = (column + 0.5) * _CELL[0] - _SIDE / 2
        bottom = height - row * _CELL[1] - 0.35 - _SIDE
        axes = figure.add_axes((left / width, bottom / height, _SIDE / width, _SIDE / height))
        if hit.image is not None:
            shown = 255 - hit.image if hit.is_ink else hit.image
            axes.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="bicubic")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("#cccccc")
        axes.set_title(f"{hit.rank}  ·  {hit.score:.3f}", fontsize=9, color="#555555")
        caption = textwrap.fill(hit.name, 24, max_lines=3, placeholder=" …")
        axes.set_xlabel(caption, fontsize=8, parse_math=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return write_file(path, content.getvalue())


def _search_shards(run: TrainedRun, query: str | Path, *, top: int) -> list[Hit]:
    """By the best of the similarities with a record's other towers."""
    config = run.config
    kind = "image" if isinstance(query, Path) else "text"
    fields = fields_of_config(config)
    decoders = {name: fields.fields[name].decoder for name in config.towers}
    wanted = ImageDecoder if isinstance(query, Path) else TextDecoder
    own = next((name for name, x in decoders.items() if isinstance(x, wanted)), None)
    if own is None:
        raise ValueError(f"the run has no tower for {kind}; it has {list(config.towers)}")
    if isinstance(query, str) and not query.strip():
        raise ValueError("expected a description, got no text")
    part = query.read_bytes() if isinstance(query, Path) else query
    try:
        value = decoders[own].decode(part, limits=fields.limits)[0]
    except DecodeError as error:
        raise ValueError(f"{kind}: {error}") from error
    vector = run.embed(own, value[None])[0]
    found = characters(run, "all")
    scores = np.full(found.table.size, -np.inf)
    for name in config.towers:
        rows = found.table.rows(name)
        if name != own and len(rows):
            columns = columns_of([name], masked_towers(config))
            parts = {column: found.table.columns[column][rows] for column in columns}
            scores[rows] = np.maximum(scores[rows], run.embed(name, parts) @ vector)
    best = np.argsort(-scores, kind="stable")[:top]
    return [
        Hit(
            rank=rank,
            score=float(scores[i]),
            name=found.names[i],
            image=None if found.images is None else found.images[i],
            is_ink=False,
        )
        for rank, i in enumerate(best, 1)
        if np.isfinite(scores[i])
    ]


def _targets(run: TrainedRun, found: Characters, *, query: str) -> np.ndarray:
    """What a query is compared with: names, or all that shows the character."""
    columns, towers = found.table.columns, run.config.towers
    if query == "image":
        target = "name" if "name" in towers else "image"
    elif set(GLYPH_FUSED) <= set(towers):
        return run.embed(FUSED, {name: columns[name] for name in GLYPH_FUSED})
    else:
        target = next(name for name in GLYPH_FUSED if name in towers)
    return run.embed(target, columns[target])


def query_name(text: str) -> np.ndarray:
    """A description as the data set encodes names: uint8 [88].

    Raises:
      ValueError: if it is empty or too long.
    """
    stripped = " ".join(text.split())
    if not stripped:
        raise ValueError("expected a description such as 'greek small letter alpha', got no text")
    try:
        size = len(stripped.lower().encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"expected a description in UTF-8, got {stripped!r}") from error
    if size > NAME_BYTES:
        raise ValueError(f"expected a description of at most {NAME_BYTES} bytes, got a longer one")
    return encode_name(stripped)
