import dataclasses
import io
import os
import struct
import zlib

import numpy as np
import pytest
from fake_run import HOSTILE, letters
from PIL import Image

from datarax.sources.glyph_drawing import draw_all
from datarax.train.config import TrainConfig
from datarax.train.files import write_file
from datarax.train.query_image import placements, read_image
from datarax.train.search import draw_hits, search


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return letters(tmp_path_factory.mktemp("runs") / "run")


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def ring(size=100):
    """Three quarters of a dark ring on light paper, off the middle, and their mask."""
    y, x = np.mgrid[:size, : size + 40] - size / 2.5
    radius = np.hypot(x, y)
    mask = (radius > 15) & (radius < 25) & ((x < 0) | (y < 0))
    return np.where(mask, 20, 240).astype(np.uint8), mask


def test_text_finds_its_picture_first(run):
    hits = search(run, text="  Latin   letter 63 ", top=5)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert hits[0].name == "latin letter 63"
    assert hits[0].score > hits[1].score > hits[4].score
    assert (hits[0].image == draw_all("image", [0x63])[0]).all()
    assert len(search(run, text="latin letter 63", top=99)) == 40


def test_picture_finds_its_name_first(run, tmp_path):
    path = save(tmp_path / "c.png", draw_all("image", [0x63])[0])
    assert search(run, image=path, top=3)[0].name == "latin letter 63"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({}, "expected either text or image"),
        ({"text": "a", "image": "a.png"}, "expected either text or image"),
        ({"text": " \n"}, "got no text"),
        ({"text": "ä" * 45}, "at most 88 bytes"),
        ({"text": "\udcff"}, "in UTF-8"),
        ({"text": "a", "top": 0}, "top: expected at least 1, got 0"),
    ],
)
def test_bad_queries(run, query, said):
    with pytest.raises(ValueError, match=said):
        search(run, **query)


@pytest.mark.parametrize("form", ["light", "dark", "jpeg", "alpha", "colour", "deep", "turned"])
def test_a_picture_is_ink_whatever_its_form(tmp_path, form):
    light, mask = ring()
    path = tmp_path / f"{form}.png"
    if form == "jpeg":
        path = save(tmp_path / "ring.jpg", light, quality=95)
    elif form == "alpha":
        colour = np.zeros((*mask.shape, 4), np.uint8)
        colour[..., 3] = mask * 255
        save(path, colour)
    elif form == "colour":
        save(path, np.where(mask[..., None], [180, 30, 20], [250, 250, 230]).astype(np.uint8))
    elif form == "deep":
        save(path, light.astype(np.uint16) * 257)
    elif form == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        save(path, light, exif=exif)
    else:
        save(path, light if form == "light" else 255 - light)
    ink = read_image(path)
    mask = np.rot90(mask, k=-1) if form == "turned" else mask
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    cropped = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert ink.shape == cropped.shape
    assert np.abs(ink - cropped).mean() < 0.05
    assert ink.max() == 1.0


def test_a_picture_is_placed_as_what_has_its_shape(tmp_path):
    codes = [*range(ord("a"), ord("z")), ord("."), ord("-"), 0x2C9]
    like = draw_all("image", codes)
    for code in (ord("p"), ord("x"), ord("."), 0x2C9):
        glyph = like[codes.index(code)]
        large = np.asarray(Image.fromarray(glyph).resize((320, 320), Image.Resampling.BICUBIC))
        path = save(tmp_path / "large.png", np.pad(255 - large, 40, constant_values=255))
        drawn = placements(read_image(path), like)
        assert drawn.shape[1:] == (32, 32)
        assert drawn.dtype == np.uint8
        assert 1 <= len(drawn) <= 4
        errors = np.abs(drawn / 255.0 - glyph / 255.0).mean(axis=(1, 2))
        assert errors.min() < 0.02, chr(code)


def test_placements_of_extreme_ink():
    like = np.concatenate([draw_all("image", [0x61, 0x7C]), np.zeros((1, 32, 32), np.uint8)])
    for shape in ((500, 1), (1, 500), (1, 1)):
        drawn = placements(np.ones(shape, np.float32), like)
        assert (drawn.max(axis=(1, 2)) > 0).all()


@pytest.mark.parametrize("inverted", [False, True])
def test_a_picture_of_the_data_set_is_taken_as_it_is(tmp_path, inverted):
    glyph = draw_all("image", [ord("a")])[0]
    path = save(tmp_path / "a.png", 255 - glyph if inverted else glyph)
    (drawn,) = placements(read_image(path), glyph[None])
    assert np.abs(drawn.astype(int) - glyph * (255 / glyph.max())).max() <= 1


def test_a_run_without_the_tower(run, tmp_path):
    narrow = dataclasses.replace(run, config=TrainConfig(towers=("outline", "image")))
    with pytest.raises(ValueError, match=r"no tower for 'name'; it has \['outline', 'image'\]"):
        search(narrow, text="a")


def png_that_claims(width, height):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


def broken():
    whole = io.BytesIO()
    Image.fromarray(ring()[0]).save(whole, format="PNG")
    gif = io.BytesIO()
    Image.fromarray(ring()[0]).save(gif, format="GIF")
    content = whole.getvalue()
    return {
        "text": (b"hello", "not a PNG or JPEG picture"),
        "empty": (b"", "not a PNG or JPEG picture"),
        "cut": (content[: len(content) // 2], "not a PNG or JPEG picture"),
        "damaged": (content[:60] + b"\xff" * 40 + content[100:], "not a PNG or JPEG picture"),
        "gif": (gif.getvalue(), "not a PNG or JPEG picture"),
        "bomb": (png_that_claims(20_000, 20_000), "expected at most 89478485 pixels"),
        "warned": (png_that_claims(10_000, 10_000), "expected at most 89478485 pixels"),
    }


@pytest.mark.parametrize("kind", list(broken()))
def test_what_is_no_picture(tmp_path, kind):
    content, said = broken()[kind]
    path = tmp_path / "query.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_image(path)


def test_flat_and_missing_pictures(tmp_path):
    path = save(tmp_path / "flat.png", np.full((9, 9), 77, np.uint8))
    with pytest.raises(ValueError, match="shows no character"):
        read_image(path)
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path)


@pytest.mark.parametrize("count", [1, 5, 7])
def test_hits_are_drawn(run, tmp_path, count):
    path = draw_hits(search(run, text="latin letter 63", top=count), tmp_path / "hits.png")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width == min(count, 5) * 228
        assert np.asarray(picture.convert("L")).std() > 5
    assert [file.name for file in tmp_path.iterdir()] == ["hits.png"]


def test_hostile_names_are_drawn(tmp_path):
    odd = letters(tmp_path / "run", [HOSTILE, "a $\\frac{$ b", "x" * 88])
    draw_hits(search(odd, text="latin letter 70", top=40), tmp_path / "hits.png")
    with pytest.raises(ValueError, match="at least one hit"):
        draw_hits([], tmp_path / "none.png")


def test_write_file_replaces_files_and_names_the_path(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    link = tmp_path / "link"
    link.symlink_to(path)
    assert write_file(link, b"new") == link
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    with pytest.raises(FileNotFoundError, match="none/file'"):
        write_file(tmp_path / "none" / "file", b"new")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "link"]


def test_write_file_writes_to_what_is_no_regular_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_file(pipe, b"new")
        assert os.read(reader, 9) == b"new"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
