import numpy as np
import pytest

from datarax.sources.decode_text import TextDecoder
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError

MIXED = "aé€😀z"  # characters of 1, 2, 3 and 4 bytes


def decode(part, length=16):
    decoder = TextDecoder(length=length)
    arrays = decoder.decode(part, limits=Limits())
    columns = [np.full((3, length), 85, array.dtype) for array in arrays]
    decoder.row_writer(columns, limits=Limits())(1, part)
    for array, column in zip(arrays, columns, strict=True):
        np.testing.assert_array_equal(column[1], array)
        assert (column[::2] == np.array(85).astype(array.dtype)).all()
    return arrays


@pytest.mark.parametrize("length", range(1, 14))
@pytest.mark.parametrize("kind", [str, bytes])
def test_text_is_cut_between_characters_and_padded(length, kind):
    part = MIXED if kind is str else MIXED.encode()
    text, mask = decode(part, length)
    kept = ""
    for character in MIXED:
        if len((kept + character).encode()) > length:
            break
        kept += character
    assert text.dtype == np.uint8
    assert text.shape == mask.shape == (length,)
    assert bytes(text[mask]).decode() == kept
    assert not text[~mask].any()
    assert mask.sum() == len(kept.encode())


def test_texts_of_a_list_are_joined():
    text, mask = decode(["red", "blue"])
    assert bytes(text[mask]) == b"red, blue"


def test_an_empty_text_is_all_padding():
    text, mask = decode(b"")
    assert not text.any()
    assert not mask.any()


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (b"ab\xff", "not valid UTF-8 at byte 2"),
        (b"abcdefghijklmnopqrst\xc3", "not valid UTF-8 at byte 20"),  # beyond the cut too
        (b"\xed\xa0\x80", "not valid UTF-8 at byte 0"),
        ("a\ud800", "not valid UTF-8 at byte 1"),
        (b"a\0b", "NUL at byte 1"),
        (7, "expected text, got int"),
        ([], "expected text, got list"),
        (["a", 1], "expected text, got list"),
        ({"a": "b"}, "expected text, got dict"),
    ],
)
def test_what_is_no_text_is_refused(part, reason):
    with pytest.raises(DecodeError, match=reason):
        decode(part)
    columns = np.zeros((1, 16), np.uint8), np.zeros((1, 16), np.bool_)
    with pytest.raises(DecodeError, match=reason):
        TextDecoder(length=16).row_writer(columns, limits=Limits())(0, part)


@pytest.mark.parametrize("length", [0, -1, 2.0, True, "3"])
def test_length_must_be_positive(length):
    with pytest.raises(
        ValueError, match="length must be a positive integer, or several that rise, got"
    ):
        TextDecoder(length=length)


def test_spec_is_what_is_decoded():
    decoder = TextDecoder(length=5)
    for made, spec in zip(decode("hi", 5), decoder.spec(), strict=True):
        assert (made.shape, made.dtype) == (spec.shape, spec.dtype)
