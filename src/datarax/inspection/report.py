"""A survey as a page that needs nothing else."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from datarax.inspection.spread import KEPT
from datarax.inspection.survey import Sample, Survey
from datarax.inspection.wording import number, printable_toml, share, shortened, size
from datarax.train.files import write_file

_PICTURE = 240  # pixels a side, at most
_SMALL = 64  # pixels: shown enlarged, and kept without loss


def write_html(survey: Survey, path: str | Path) -> Path:
    """Write a page with the numbers and the samples; everything that the data says is escaped.

    Returns:
      `path`.

    Raises:
      OSError: if it cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("datarax.inspection", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, size=size, shortened=shortened)
    html = environment.get_template("inspection.html.j2").render(
        survey=survey,
        toml=printable_toml(survey.toml),
        share=share,
        kept=KEPT,
        samples=[_shown(sample) for sample in survey.samples],
    )
    # names of files may have bytes that are no UTF-8
    return write_file(Path(path), html.encode("utf-8", "replace"))


def picture_uri(image: np.ndarray) -> str:
    """A data URI of at most 240 pixels a side, from uint8 [h, w], [h, w, 3] or [h, w, 4].

    JPEG, or PNG of what is small or has transparency.
    """
    picture = Image.fromarray(image)
    lossless = max(picture.size) <= _SMALL or picture.mode == "RGBA"
    picture.thumbnail((_PICTURE, _PICTURE))
    content = io.BytesIO()
    kind = "png" if lossless else "jpeg"
    picture.save(content, format=kind.upper(), **({} if lossless else {"quality": 82}))
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def _shown(sample: Sample) -> Mapping[str, Any]:
    return {
        "place": sample,
        "pictures": {
            name: {"uri": picture_uri(image), "small": max(image.shape[:2]) <= _SMALL}
            for name, image in sample.pictures.items()
        },
    }
