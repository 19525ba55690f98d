"""Arrays in NumPy's file format, their size checked before anything of that size exists."""

import math
import re

import numpy as np

from datarax.sources.record import DecodeError

MAGIC = b"\x93NUMPY"
ITEM = re.compile(
    r"""['"](descr|fortran_order|shape)['"]\s*:\s*('[^']*'|"[^"]*"|True|False|\([\d\s,]*\))"""
)
DTYPE = re.compile(r"[<>|=]?[biuf]\d{1,2}")


def parse_npy(data: bytes, *, array_bytes: int) -> np.ndarray:
    """The array of an `npy` file: a read-only view of `data`. Nothing is unpickled or evaluated.

    Args:
      data: the file.
      array_bytes: as many at most.

    Raises:
      DecodeError: if it is no such file, truncated or too long, of another dtype than bool,
        integers and floats, or larger than `array_bytes`.

    Example:
      >>> import io
      >>> np.save(file := io.BytesIO(), np.arange(3, dtype=np.uint8))
      >>> parse_npy(file.getvalue(), array_bytes=1000)
      array([0, 1, 2], dtype=uint8)
    """
    header, start = _header(data)
    items = dict(ITEM.findall(header))
    if items.keys() != {"descr", "fortran_order", "shape"}:
        raise DecodeError("not an npy file of plain numbers: its header cannot be read")
    descr = items["descr"][1:-1]
    if not DTYPE.fullmatch(descr):
        raise DecodeError(f"an npy file of dtype {descr[:32]!r}: expected bool, integers or floats")
    try:
        dtype = np.dtype(descr)
    except TypeError as error:
        raise DecodeError(f"an npy file of dtype {descr!r}, which does not exist") from error
    digits = re.findall(r"\d{1,20}", items["shape"])
    shape = tuple(int(size) for size in digits)
    size = math.prod(shape) * dtype.itemsize
    if size > array_bytes:
        raise DecodeError(f"an array of {size} bytes, at most {array_bytes} (Limits.array_bytes)")
    if len(shape) > 32 or size != len(data) - start:
        raise DecodeError(f"an npy file of shape {list(shape)} with {len(data) - start} bytes")
    order = "F" if items["fortran_order"] == "True" else "C"
    flat = np.frombuffer(data, dtype, count=math.prod(shape), offset=start)
    return flat.reshape(shape, order=order)  # type: ignore[call-overload]


def _header(data: bytes) -> tuple[str, int]:
    if not data.startswith(MAGIC) or len(data) < 12:
        raise DecodeError("not an npy file")
    version = data[6]
    if version not in (1, 2):
        raise DecodeError(f"an npy file of version {version}: expected 1 or 2")
    begin = 10 if version == 1 else 12
    end = begin + int.from_bytes(data[8:begin], "little")
    if end > len(data) or end - begin > 10_000:
        raise DecodeError("an npy file that is cut in its header")
    return data[begin:end].decode("latin-1"), end
