import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.textpath import TextPath

from datarax.sources import GlyphsSource, glyph_drawing, glyphs


@pytest.fixture(scope="module")
def arrays():
    return glyphs.draw_glyphs()


def row_of(arrays, character):
    return int(np.flatnonzero(arrays["code"] == ord(character))[0])


def test_every_inked_named_character_is_a_record(arrays):
    charmap = FT2Font(str(glyph_drawing.font_path("image"))).get_charmap()
    named = {code for code in charmap if unicodedata.name(chr(code), None)}
    codes = set(arrays["code"].tolist())
    assert codes <= named
    assert 5000 < len(codes) < 7000
    left_out = {unicodedata.category(chr(code)) for code in named - codes}
    assert left_out <= {"Zs", "Cf", "Zl", "Zp", "Lo", "So", "Mn", "Lm", "Po", "Sm"}
    assert {ord(" "), 0xA0, 0x2003, 0x200B, 0x2800} & codes == set()
    assert (arrays["image"].max(axis=(1, 2)) > 0).all()


def test_names_are_unicode_names_in_lower_case(arrays):
    row = row_of(arrays, "ά")
    name = bytes(arrays["name"][row]).rstrip(b"\0").decode()
    assert name == "greek small letter alpha with tonos"
    for code, encoded in zip(arrays["code"][::97], arrays["name"][::97], strict=True):
        assert bytes(encoded).rstrip(b"\0").decode() == unicodedata.name(chr(code)).lower()


def test_encode_name_cuts_and_pads():
    assert glyph_drawing.encode_name("Äb").tobytes() == "äb".encode().ljust(88, b"\0")
    assert glyph_drawing.encode_name("x" * 100).tobytes() == b"x" * 88


@pytest.mark.parametrize("field", ["image_serif", "image_mono", "image_bold"])
def test_presence_is_what_the_face_has(arrays, field):
    charmap = FT2Font(str(glyph_drawing.font_path(field))).get_charmap()
    known = np.array([int(code) in charmap for code in arrays["code"]])
    present = arrays[f"{field}_present"]
    assert not (present & ~known).any()
    assert (present == known).mean() > 0.99
    assert (arrays[field][present].max(axis=(1, 2)) > 0).all()
    assert not arrays[field][~present].any()
    assert (arrays[field][present] != arrays["image"][present]).any(axis=(1, 2)).mean() > 0.8


def test_pictures_stand_on_one_baseline_and_keep_their_side(arrays):
    image = arrays["image"]
    capital, small = (image[row_of(arrays, c)].any(axis=1) for c in "Ox")
    assert np.flatnonzero(small)[-1] in (25, 26)
    assert np.flatnonzero(capital)[0] < np.flatnonzero(small)[0]
    left, right = (image[row_of(arrays, c)] for c in "⠁⠈")
    assert np.flatnonzero(left.any(axis=0)).max() < 16 <= np.flatnonzero(right.any(axis=0)).min()


def test_outlines_lie_on_the_contours(arrays):
    properties = FontProperties(fname=str(glyph_drawing.font_path("image")))
    for character in "iO9@":
        points = arrays["outline"][row_of(arrays, character)]
        path = TextPath((0, 0), character, size=1, prop=properties)
        polygons = path.to_polygons(closed_only=False)
        dense = np.concatenate(
            [np.linspace(a, b, 20) for polygon in polygons for a, b in pairwise(polygon)]
        )
        dense = dense - [(dense[:, 0].min() + dense[:, 0].max()) / 2, 0.35]
        ours = points[:, :2] - [(points[:, 0].min() + points[:, 0].max()) / 2, 0]
        distance = np.linalg.norm(ours[:, None] - dense[None], axis=2).min(axis=1)
        assert distance.max() < 0.03, character
        assert points[:, 2].sum() == len(polygons)
        assert points[0, 2] == 1


def test_outline_points_are_at_equal_distances(arrays):
    points = arrays["outline"][row_of(arrays, "—")]
    closed = np.concatenate([points[:, :2], points[:1, :2]])
    steps = np.abs(np.diff(closed, axis=0)).sum(axis=1)
    assert steps.min() > 0.5 * np.median(steps)
    assert steps.max() < 1.05 * np.median(steps)


def test_many_contours_share_the_points():
    assert glyph_drawing.share_points(np.array([1e-9, 1.0, 3.0])).tolist() == [1, 16, 47]
    assert glyph_drawing.share_points(np.ones(64)).tolist() == [1] * 64
    assert glyph_drawing.share_points(np.zeros(2)).sum() == 64


def test_splits_partition_and_keep_equal_drawings_together(arrays):
    split = glyphs.split_of(arrays)
    shares = [np.mean(split == name) for name in ("train", "validation", "test")]
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.005)
    for field in ("image", "outline", "image_serif"):
        seen = {}
        present = arrays.get(f"{field}_present", np.ones(len(split), bool))
        for drawing, part in zip(arrays[field][present], split[present], strict=True):
            assert seen.setdefault(drawing.tobytes(), part) == part
    assert len({split[row_of(arrays, c)] for c in "AΑА"}) == 1
    assert (split == glyphs.split_of(arrays)).all()


def test_records_and_their_metadata():
    source = GlyphsSource("test")
    record = source[3]
    character = record.metadata["character"]
    assert unicodedata.name(character).lower() == record.metadata["name"]
    assert bytes(record.data["name"]).rstrip(b"\0").decode() == record.metadata["name"]
    lacking = [r for r in source if "image_mono" not in r.data]
    assert 0 < len(lacking) < len(source)
    assert set(source.element_spec()) == {"name", *glyph_drawing.FACES, "outline"}
    batch = source.take(np.arange(len(source)))
    assert not batch.presence["image_mono"].all()
    assert "image" not in batch.presence


def test_limit_spreads_over_the_split():
    few, all_of_them = GlyphsSource("train", limit=7), GlyphsSource("train")
    names = [record.metadata["name"] for record in all_of_them]
    places = [names.index(record.metadata["name"]) for record in few]
    assert len(places) == 7
    assert places == sorted(places)
    assert places[-1] > 0.8 * len(names)


def test_unknown_split_and_limit():
    with pytest.raises(ValueError, match=r"split must be one of .*got 'dev'"):
        GlyphsSource("dev")
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        GlyphsSource(limit=0)


class TestCache:
    @pytest.fixture(autouse=True)
    def few_characters(self, monkeypatch):
        codes = glyph_drawing.code_points
        monkeypatch.setattr(glyph_drawing, "code_points", lambda field: codes(field)[:80])

    def test_is_written_once_and_read_without_pickle(self, monkeypatch, tmp_path):
        monkeypatch.setenv("DATARAX_CACHE_DIR", str(tmp_path / "cache"))
        made = glyphs.load_glyphs()
        (file,) = (tmp_path / "cache").iterdir()
        assert file.name == f"glyphs-{glyph_drawing.fingerprint()}.npz"
        monkeypatch.setattr(glyphs, "draw_glyphs", lambda: pytest.fail("drawn twice"))
        again = glyphs.load_glyphs()
        assert again.keys() == made.keys()
        assert all(np.array_equal(again[name], made[name]) for name in made)

    def test_a_damaged_file_is_drawn_anew(self, monkeypatch, tmp_path):
        monkeypatch.setenv("DATARAX_CACHE_DIR", str(tmp_path))
        made = glyphs.load_glyphs()
        (file,) = tmp_path.iterdir()
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        again = glyphs.load_glyphs()
        assert all(np.array_equal(again[name], made[name]) for name in made)
        assert file.read_bytes() == whole

    def test_a_chosen_directory_that_cannot_be_written_is_an_error(self, monkeypatch, tmp_path):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("DATARAX_CACHE_DIR", str(tmp_path / "file" / "cache"))
        with pytest.raises(OSError, match="file"):
            glyphs.load_glyphs()

    def test_the_users_own_directory_may_be_unwritable(self, monkeypatch, tmp_path):
        (tmp_path / "file").write_text("")
        monkeypatch.delenv("DATARAX_CACHE_DIR", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert len(glyphs.load_glyphs()["code"]) > 70
