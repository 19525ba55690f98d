"""What a survey counts, against plain loops over what was written."""

import dataclasses
import io
import json
import statistics
import tarfile
import wave

import numpy as np
import pytest
from PIL import Image

from datarax.inspection import as_text, survey, write_html
from datarax.inspection.report import picture_uri
from datarax.inspection.spread import KEPT, Spread
from datarax.sources.fields import Fields
from datarax.sources.limits import Limits
from datarax.sources.tar import TarSource

HOSTILE = '<script>alert("x")</script>\u202e\x1b[31m'
FIELDS = {
    "image": {"from": ["png", "jpg"], "decode": "image", "size": [8, 8], "missing": "mask"},
    "caption": {"from": "txt", "decode": "text", "length": 16},
    "score": {"from": "json.score", "decode": "number", "missing": "default", "default": 0},
    "tokens": {"from": "json.tokens", "decode": "tokens", "length": 4, "missing": "mask"},
    "sound": {"from": "wav", "decode": "audio", "rate": 8000, "seconds": 1, "missing": "mask"},
}


def picture(width, height, kind):
    file = io.BytesIO()
    Image.new("RGB", (width, height), (width, height, 7)).save(file, kind)
    return file.getvalue()


def sound(seconds):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(b"\0\0" * int(8000 * seconds))
    return file.getvalue()


def records():
    """Parts by suffix: 40 records, of which 7 and 9 are bad."""
    for row in range(40):
        parts = {"txt": f"text {row // 3}".encode() if row % 5 else b"the same as many others"}
        parts["json"] = json.dumps({"score": row / 4, "tokens": [1] * (row % 7)}).encode()
        if row % 4:
            kind = "png" if row % 2 else "jpg"
            name = {"png": "PNG", "jpg": "JPEG"}[kind]
            parts[kind] = picture(10 + row, 60 - row, name)
        if row % 8 == 0:
            parts["wav"] = sound(0.25 * (1 + row // 8))
        if row == 7:
            parts["png"] = b"no picture of 7"
            parts["txt"] = b"\xff"
        if row == 9:
            del parts["txt"]
        if row == 12:
            parts["txt"] = b"16 bytes: whole."
        if row == 11:
            parts["txt"] = HOSTILE.encode()
        yield parts


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tars")
    written = list(records())
    for shard in range(2):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for row in range(20 * shard, 20 * shard + 20):
                for suffix, data in written[row].items():
                    member = tarfile.TarInfo(f"<b>{row:02}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return [folder / "0.tar", folder / "1.tar"]


@pytest.fixture(scope="module")
def found(paths):
    return survey(TarSource(paths, fields=FIELDS))


def by_name(found):
    return {field.name: field for field in found.fields}


def numbers(spread):
    return spread.low, spread.median, spread.high, spread.count


def expected(values):
    values = list(values)
    return min(values), statistics.median_low(values), max(values), len(values)


def test_the_counts(found):
    assert (found.records, found.looked_at, len(found.shards)) == (40, 40, 2)
    assert (found.good, found.bad, found.skipped) == (38, 2, 0)
    assert found.part_bytes == sum(len(part) for parts in records() for part in parts.values())
    assert found.lost == ()


def test_the_presence(found):
    fields = by_name(found)
    written = list(records())
    assert fields["image"].present == sum("png" in r or "jpg" in r for r in written)
    assert fields["caption"].present == sum("txt" in r for r in written)
    assert fields["sound"].present == sum("wav" in r for r in written)
    assert fields["score"].present == fields["tokens"].present == 40
    assert (fields["image"].shape, fields["image"].dtype) == ((8, 8, 3), "uint8")
    assert (fields["score"].kind, fields["score"].shape) == ("number", ())


def test_the_sizes_of_parts_count_bad_ones_too(found):
    images = [r.get("png", r.get("jpg")) for r in records()]
    sizes = by_name(found)["image"].sizes["part (bytes)"]
    assert numbers(sizes) == expected(len(image) for image in images if image)
    assert "part (bytes)" not in by_name(found)["score"].sizes


def test_the_sizes_of_images_are_those_of_their_headers(found):
    images = [r.get("png", r.get("jpg")) for row, r in enumerate(records()) if row != 7]
    opened = [Image.open(io.BytesIO(image)) for image in images if image]
    image = by_name(found)["image"]
    assert numbers(image.sizes["width (pixels)"]) == expected(one.width for one in opened)
    assert numbers(image.sizes["height (pixels)"]) == expected(one.height for one in opened)
    assert image.formats == {"JPEG": 10, "PNG": 19}


def test_the_sizes_of_texts_tokens_numbers_and_sounds(found):
    fields = by_name(found)
    texts = [r["txt"] for row, r in enumerate(records()) if row not in (7, 9)]
    assert numbers(fields["caption"].sizes["text (bytes)"]) == expected(map(len, texts))
    assert fields["caption"].cut == sum(len(text) > 16 for text in texts)
    tokens = [row % 7 for row in range(40)]
    assert numbers(fields["tokens"].sizes["tokens"]) == expected(tokens)
    assert fields["tokens"].cut == sum(length > 4 for length in tokens)
    assert numbers(fields["score"].sizes["value"]) == expected(row / 4 for row in range(40))
    assert numbers(fields["sound"].sizes["seconds"]) == (0.25, 0.75, 1.25, 5)
    assert fields["sound"].cut == 1
    assert fields["sound"].sizes["rate (Hz)"].high == 8000


def test_equal_texts(found):
    caption = by_name(found)["caption"]
    texts = [r["txt"].decode() for row, r in enumerate(records()) if row not in (7, 9)]
    counts = {text: texts.count(text) for text in texts}
    assert caption.duplicates.texts == 38
    assert caption.duplicates.different == len(counts)
    assert caption.duplicates.sharing == sum(n for n in counts.values() if n > 1)
    first = sorted(counts, key=lambda text: (-counts[text], texts.index(text)))[:3]
    assert caption.frequent == tuple((counts[text], text) for text in first)
    assert by_name(found)["image"].duplicates is None


def test_what_is_bad(found):
    wrong = sorted((reason.field, reason.count) for reason in found.reasons)
    assert wrong == [("caption", 1), ("caption", 1), ("image", 1)]
    assert [(fault.row, fault.field) for fault in found.first_bad] == [
        *((7, "image"), (7, "caption"), (9, "caption")),
    ]
    assert "lacks txt" in found.first_bad[-1].reason
    assert found.first_bad[-1].key == "<b>09"


def test_reasons_that_differ_in_numbers_are_one(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for row in range(5):
            member = tarfile.TarInfo(f"{row}.png")
            data = picture(30 + row, 30, "PNG")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    fields = Fields.from_mapping({"image": FIELDS["image"]}, limits=Limits(pixels=930))
    found = survey(TarSource(tmp_path, fields=fields))
    assert [(reason.count, reason.field) for reason in found.reasons] == [(3, "image")]
    assert "32 x 30" in found.reasons[0].example
    assert (found.good, found.bad) == (2, 3)


def test_what_is_skipped_is_not_bad(paths):
    fields = {"sound": {**FIELDS["sound"], "missing": "skip"}, "caption": FIELDS["caption"]}
    found = survey(TarSource(paths, fields=fields))
    assert (found.good, found.bad, found.skipped) == (5, 0, 35)
    assert found.reasons == ()
    assert by_name(found)["caption"].present == 39  # told of all, also of those left out


def test_a_record_is_bad_if_that_is_met_before_what_it_is_skipped_for(paths):
    fields = {"caption": FIELDS["caption"], "sound": {**FIELDS["sound"], "missing": "skip"}}
    found = survey(TarSource(paths, fields=fields))
    assert (found.good, found.bad, found.skipped) == (5, 2, 33)
    assert [fault.field for fault in found.first_bad] == ["caption", "caption"]


def test_the_samples_are_evenly_spread_and_good(paths, found):
    assert len(found.samples) == 24
    rows = [(sample.shard, sample.row) for sample in found.samples]
    assert len(set(rows)) == 24
    assert rows[0] == (str(paths[0]), 0)
    assert rows[-1] == (str(paths[1]), 19)
    assert not {(str(paths[0]), 7), (str(paths[0]), 9)} & set(rows)
    source = TarSource(paths, fields=FIELDS)
    for sample in found.samples:
        place = sample.row + 20 * (sample.shard == str(paths[1]))
        assert source[place].metadata["key"] == sample.key
        if "image" in sample.pictures:
            np.testing.assert_array_equal(sample.pictures["image"], source[place].data["image"])
        assert sample.values["score"] == f"{place / 4:g}"


def test_limit_and_rows(paths):
    source = TarSource(paths, fields=FIELDS)
    found = survey(source, limit=9)
    assert (found.records, found.looked_at, found.bad) == (40, 9, 1)
    found = survey(source, rows=[7, 9, 10])
    assert (found.looked_at, found.good, found.bad) == (3, 1, 2)
    assert [sample.row for sample in found.samples] == [10]
    with pytest.raises(ValueError, match="no records to look at"):
        survey(source, rows=[])


def test_a_cut_shard_is_told(tmp_path, paths):
    data = paths[0].read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: len(data) // 2])
    found = survey(TarSource(tmp_path, fields=FIELDS))
    assert len(found.lost) == 1
    assert "cut" in found.lost[0].reason
    assert "lost in whole shards" in as_text(found)


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_the_same_survey_with_any_number_of_threads(paths, found, threads):
    again = survey(TarSource(paths, fields=FIELDS), threads=threads)
    assert as_text(again) == as_text(found)
    assert [sample.key for sample in again.samples] == [sample.key for sample in found.samples]


def test_nothing_in_the_data_steers_the_terminal(found):
    text = as_text(found)
    assert all(character == "\n" or character.isprintable() for character in text)
    assert "&lt;" not in text


def test_the_printed_fields_are_read_back(found):
    import tomllib

    printed = as_text(found).split("\n\n")[1]
    fields = Fields.from_mapping(tomllib.loads(printed)["fields"])
    assert fields == Fields.from_mapping(FIELDS)


def test_the_page_escapes_what_the_data_says(paths, tmp_path):
    found = survey(TarSource(paths, fields=FIELDS), rows=[11, 7, 9])
    html = write_html(found, tmp_path / "page.html").read_text("utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in html
    assert "<b>" not in html
    assert "&lt;b&gt;11" in html
    assert "http://" not in html
    assert "https://" not in html


def test_medians_of_a_sample_are_told(found, tmp_path):
    spread = Spread(low=0, median=1, high=2, count=KEPT + 1)
    fields = (dataclasses.replace(found.fields[0], sizes={"seconds": spread}),)
    told = "edians are of a sample of 4,096"
    sampled = dataclasses.replace(found, fields=fields)
    assert told in as_text(sampled)
    assert told in write_html(sampled, tmp_path / "page.html").read_text("utf-8")
    assert told not in as_text(found)
    assert told not in write_html(found, tmp_path / "page.html").read_text("utf-8")


def test_the_page_has_the_samples(paths, found, tmp_path):
    html = write_html(found, tmp_path / "page.html").read_text("utf-8")
    shown = [sample for sample in found.samples if "image" in sample.pictures]
    assert html.count("data:image/png;base64,") == len(shown)
    for sample in found.samples:
        assert f"{sample.key.replace('<b>', '&lt;b&gt;')}</bdi>" in html


@pytest.mark.parametrize("shape", [(9, 12), (9, 12, 3), (9, 12, 4), (400, 300, 3), (300, 600, 4)])
def test_pictures(shape):
    import base64

    image = np.full(shape, 77, np.uint8)
    head, _, data = picture_uri(image).partition(",")
    with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
        assert head == f"data:{Image.MIME[opened.format]};base64"
        assert max(opened.size) == min(max(shape[:2]), 240)
        assert np.abs(np.asarray(opened).astype(int) - 77).max() <= 2
