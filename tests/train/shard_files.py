"""Tars of pictures, captions and sounds that name each other, and of faults."""

import io
import tarfile

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "white": (250,) * 3}
SIZES = {"small": 3, "large": 7}
SIDE = 16


def look(number):
    """The colour and size of record `number`."""
    draw = np.random.default_rng(number)
    return list(COLOURS)[draw.integers(4)], list(SIZES)[draw.integers(2)]


def picture(number):
    """A PNG of a square of the colour and size."""
    colour, size = look(number)
    x, y = np.random.default_rng(number + 10**6).integers(8, 9, 2).tolist()
    half = SIZES[size]
    image = Image.new("RGB", (SIDE, SIDE), (10, 10, 10))
    ImageDraw.Draw(image).rectangle((x - half, y - half, x + half, y + half), fill=COLOURS[colour])
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def caption(number):
    """Colour and size in words."""
    return " ".join(look(number)[::-1]).encode()


def vector(number):
    """An `npy` of noise around a vector of the colour and size."""
    colour, size = look(number)
    centre = np.random.default_rng(list(COLOURS).index(colour) * 2 + len(size) % 2).normal(size=8)
    content = io.BytesIO()
    np.save(content, (centre + 0.05 * np.sin(number)).astype(np.float32))
    return content.getvalue()


def write_tars(folder, counts, *, bad=(), lacking=None):
    """`data-0.tar` and so on with `counts` records, numbered through.

    Args:
      folder: made if it does not exist.
      counts: records of each.
      bad: numbers of records whose picture is none.
      lacking: gives the suffixes that a record is without.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for place, count in enumerate(counts):
        with tarfile.open(folder / f"data-{place}.tar", "w") as tar:
            for _ in range(count):
                parts = {"png": picture(number), "txt": caption(number), "npy": vector(number)}
                if number in bad:
                    parts["png"] = b"no picture"
                for suffix in lacking(number) if lacking else ():
                    del parts[suffix]
                for suffix, content in parts.items():
                    member = tarfile.TarInfo(f"{number:05}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
                number += 1
    return folder
