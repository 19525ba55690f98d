"""How much a record may ask for: checked from headers, before anything is decoded."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What is beyond one of these is refused as a fault of the record.

    Attributes:
      pixels: of an image, width times height.
      audio_seconds: of a sound.
      member_bytes: of one part of a record: a member of a tar, a cell of a table, a file.
      array_bytes: of an array, as its header declares it.
      json_depth: of nested lists and objects.
      unpacked_bytes: of a whole shard that is compressed, once it is not.

    Raises:
      ValueError: if one is less than 1.
    """

    pixels: int = 2**26
    audio_seconds: float = 3600.0
    member_bytes: int = 2**28
    array_bytes: int = 2**28
    json_depth: int = 32
    unpacked_bytes: int = 2**34

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value < 1:
                raise ValueError(f"{field.name} must be at least 1, got {value}")
