import io

import numpy as np
import pytest

from datarax.sources.decode_npy import parse_npy
from datarax.sources.record import DecodeError


def npy(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), version=version)
    return file.getvalue()


def parse(data, array_bytes=10_000):
    return parse_npy(data, array_bytes=array_bytes)


DTYPES = ["?", "u1", "i1", "<u2", ">i2", "<i4", ">i8", "<u8", "<f2", ">f4", "<f8"]
ARRAYS = {
    **{dtype: np.arange(6).reshape(2, 3).astype(dtype) for dtype in DTYPES},
    "scalar": np.float32(3),
    "empty": np.zeros((0, 3)),
    "fortran": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
}


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize("name", ARRAYS)
def test_what_numpy_writes_is_read_as_numpy_does(name, version):
    data = npy(ARRAYS[name], version)
    made, meant = parse(data), np.load(io.BytesIO(data), allow_pickle=False)
    np.testing.assert_array_equal(made, meant)
    assert made.dtype == meant.dtype
    assert made.shape == meant.shape


def headed(header, body=b"", version=1):
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + len(header).to_bytes(2, "little")
        + header.encode()
        + body
    )


def test_the_order_and_quotes_of_the_header_are_free():
    header = """{ "shape" : (2,3) , "descr":"<i2", 'fortran_order':False}\n"""
    made = parse(headed(header, np.arange(6, dtype="<i2").tobytes()))
    np.testing.assert_array_equal(made, np.arange(6).reshape(2, 3))


GOOD = npy(np.arange(4.0))
HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999, 999999999999), }"
OBJECTS = np.array([{"a": 1}], dtype=object)
PICKLED = io.BytesIO()
np.save(PICKLED, OBJECTS, allow_pickle=True)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an npy file"),
        (b"PK\3\4" + bytes(20), "not an npy file"),
        (GOOD[:60], "cut in its header"),
        (GOOD[:-1], r"shape \[4\] with 31 bytes"),
        (GOOD + b"x", r"shape \[4\] with 33 bytes"),
        (PICKLED.getvalue(), "dtype '|O': expected bool, integers or floats"),
        (npy(np.array(["a"])), "dtype '<U1'"),
        (npy(np.zeros(2, "c8")), "dtype '<c8'"),
        (npy(np.zeros(2, "M8[s]")), "dtype '<M8"),
        (npy(np.zeros(2, [("a", "f4")])), "header cannot be read"),
        (headed(HUGE), "at most 10000"),
        (headed(HUGE.replace("<f8", "<f3")), "'<f3', which does not exist"),
        (headed("__import__('os').system('true')"), "header cannot be read"),
        (headed("(" * 9000), "header cannot be read"),
        (headed("ab", version=3), "version 3"),
        (npy(np.zeros(2000)), "16000 bytes, at most 10000"),
    ],
    ids=range(16),
)
def test_what_is_no_such_file_is_refused(data, reason):
    with pytest.raises(DecodeError, match=reason):
        parse(data)


def test_any_cut_and_any_changed_byte_gives_an_array_or_a_reason():
    for place in range(len(GOOD)):
        for data in (GOOD[:place], GOOD[:place] + bytes([GOOD[place] ^ 0x41]) + GOOD[place + 1 :]):
            try:
                made = parse(data)
            except DecodeError:
                continue
            assert made.nbytes == 32
