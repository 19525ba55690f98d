import io

import numpy as np
import pytest

from datarax.sources.decode_array import ArrayDecoder, NumberDecoder, TokensDecoder
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def decode(decoder, part):
    made = decoder.decode(part, limits=Limits())
    for array, spec in zip(made, decoder.spec(), strict=True):
        assert (array.shape, array.dtype) == (spec.shape, spec.dtype)
    return made


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "float16", "bool"])
@pytest.mark.parametrize("source", ["<f8", ">i8", "<u2", "?", "list"])
def test_arrays_keep_their_values(dtype, source):
    values = [[0, 1], [1, 0], [1, 1]]
    part = values if source == "list" else npy(np.array(values, source))
    (made,) = decode(ArrayDecoder(shape=(3, 2), dtype=dtype), part)
    np.testing.assert_array_equal(made, values)


@pytest.mark.parametrize(
    ("part", "dtype", "reason"),
    [
        ([1.0], "float32", r"expected shape \[2\], got \[1\]"),
        ([[1.0, 2.0]], "float32", r"expected shape \[2\], got \[1, 2\]"),
        ([1, 256], "uint8", "a value of 1 to 256 is beyond uint8"),
        ([-1, 0], "uint8", "a value of -1 to 0 is beyond uint8"),
        ([0, 2], "bool", "beyond bool"),
        ([0.5, 1.0], "int32", "no whole number"),
        ([float("nan"), 0.0], "float32", "not finite"),
        ([float("inf"), 0.0], "int32", "not finite"),
        ([1e300, 0.0], "float32", "beyond float32"),
        ([1e5, 0.0], "float16", "beyond float16"),
        ([2**40, 0], "int32", "beyond int32"),
        ([2**200, 0], "float32", "values of dtype object"),
        ([[1], [1, 2]], "float32", "lists of equal length"),
        (["a", "b"], "float32", "dtype <U1"),
        ([None, 1], "float32", "dtype object"),
        ("12", "float32", "expected numbers, got str"),
        (b"12", "float32", "not an npy file"),
        ({"a": 1}, "float32", "expected numbers, got dict"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(part, dtype, reason):
    with pytest.raises(DecodeError, match=reason):
        decode(ArrayDecoder(shape=(2,), dtype=dtype), part)


def test_the_size_of_an_array_is_limited():
    with pytest.raises(DecodeError, match=r"Limits\.array_bytes"):
        ArrayDecoder(shape=(9,)).decode(npy(np.zeros(9)), limits=Limits(array_bytes=71))


@pytest.mark.parametrize(
    ("part", "dtype", "value"),
    [
        (3, "int32", 3),
        (2.5, "float32", 2.5),
        (True, "float32", 1),
        (np.int64(-4), "int32", -4),
        (b" 42\n", "int32", 42),
        ("-1.5e3", "float32", -1500),
        (".5", "float32", 0.5),
        ("+7.", "int32", 7),
        (b"2147483647", "int32", 2**31 - 1),
        (npy(np.float64(0.25)), "float32", 0.25),
    ],
)
def test_numbers_are_read_from_numbers_and_text(part, dtype, value):
    (made,) = decode(NumberDecoder(dtype=dtype), part)
    assert made == value


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (b"nan", "expected a number, got 'nan'"),
        (b"1_000", "expected a number"),
        ("١٢", "expected a number"),
        (b"", "expected a number, got ''"),
        (b"\xff1", "expected a number"),
        (b"1 2", "expected a number"),
        (b"9" * 5000, "expected a number"),
        (b"1e999", "not finite"),
        ("2147483648", "beyond int32"),
        (0.5, "no whole number"),
        (float("nan"), "not finite"),
        ([1, 2], "expected one number, got an array"),
        ({"a": 1}, "expected numbers, got dict"),
    ],
)
def test_numbers_that_are_none_are_refused(part, reason):
    with pytest.raises(DecodeError, match=reason):
        decode(NumberDecoder(dtype="int32"), part)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
@pytest.mark.parametrize("form", [list, np.array, npy, lambda x: str(list(x)).encode()])
def test_tokens_are_padded_or_cut(count, form):
    values = list(range(-1, count - 1))
    if form in (np.array, npy) and not values:
        values = np.zeros(0, np.int64)
    tokens, mask = decode(TokensDecoder(length=4), form(values))
    assert tokens[mask].tolist() == list(values)[:4]
    assert mask.tolist() == [i < count for i in range(4)]
    assert not tokens[~mask].any()


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ([1.0], "list of integers, got float64"),
        ([True], "list of integers, got bool"),
        ([2**31], "beyond int32"),
        ([[1]], r"list of tokens, got shape \[1, 1\]"),
        (5, r"list of tokens, got shape \[\]"),
        (b"[1,", "not JSON"),
        ("red", "not JSON"),
        (b'{"a": 1}', "expected numbers, got dict"),
    ],
)
def test_tokens_that_are_none_are_refused(part, reason):
    with pytest.raises(DecodeError, match=reason):
        decode(TokensDecoder(length=4), part)


def test_defaults_are_decoded_or_fill_the_array():
    (full,) = ArrayDecoder(shape=(2, 2)).default(0.5)
    assert full.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert full.dtype == np.float32
    assert ArrayDecoder(shape=(2,)).default([1, 2])[0].tolist() == [1, 2]
    assert TokensDecoder(length=3).default([9])[0].tolist() == [9, 0, 0]
    assert NumberDecoder().default(4)[0] == 4


@pytest.mark.parametrize("dtype", ["int64", "float64", "complex64", "object", "<f4", 3])
def test_dtypes_that_a_device_does_not_hold_are_refused(dtype):
    for make in (lambda: NumberDecoder(dtype=dtype), lambda: ArrayDecoder(shape=(1,), dtype=dtype)):
        with pytest.raises(ValueError, match=r"dtype must be one of .* got"):
            make()


@pytest.mark.parametrize("shape", [(0,), (-1, 2), (2.0,), 3, (True,)])
def test_shapes_must_be_positive(shape):
    with pytest.raises(ValueError, match="shape must be a list of positive integers, got"):
        ArrayDecoder(shape=shape)


def test_the_length_of_tokens_must_be_positive():
    with pytest.raises(
        ValueError, match="length must be a positive integer, or several that rise, got 0"
    ):
        TokensDecoder(length=0)
    with pytest.raises(ValueError, match=r"got \[3, 5\]: give them as a tuple"):
        TokensDecoder(length=[3, 5])
