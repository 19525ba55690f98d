"""The configuration of a training run, and its way to and from TOML."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from datarax.train.settings import (
    check_settings,
    read_toml,
    setting,
    settings_from,
    suggestion,
    to_toml,
)

GLYPHS = "glyphs"
DATA_SETS = (GLYPHS,)
FUSED = "fused"  # what the fusion of towers is called
GLYPH_TOWERS = ("image", "outline", "name")
GLYPH_FUSED = ("image", "outline")
ON_ERROR = ("mask", "raise")
SPLITS: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")
LOSSES = (
    "info_nce",
    "decoupled",
    "smoothed",
    "sigmoid",
    "nt_xent",
    "triplet",
    "volume",
    "symile",
)
FUSIONS = (
    "gated",
    "attention",
    "concat",
    "weighted_sum",
    "gate",
    "film",
    "mfb",
    "mutan",
    "block",
    "low_rank_tensor",
    "product_of_experts",
    "transformer",
    "bottleneck",
    "multiplicative",
)
SHARD_SUFFIXES = (
    *(".tar", ".tar.gz", ".tgz", ".tar.zst"),
    *(".parquet", ".arrow", ".arrows", ".ipc", ".feather"),
    *(".arrayrecord", ".array_record", ".jsonl", ".ndjson"),
)
COMPUTE_DTYPES = ("float32", "bfloat16")
CONFIG_FILE = "config.toml"
_HEADER = "# The configuration of a datarax run: `datarax train` on this file repeats it.\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What a training run is: the same configuration gives the same run.

    Raises:
      ValueError: naming a field of the wrong type or out of range.
    """

    data: str | tuple[str, ...] = setting(
        GLYPHS,
        help="`glyphs`, or shards: a file, a directory, a glob or a range {000..012}, or several",
    )
    validation: str | tuple[str, ...] | None = setting(
        None, help="other shards to validate on; else one of each `held_out` records of `data`"
    )
    test: str | tuple[str, ...] | None = setting(
        None, help="other shards to test on; else another one of each `held_out` records of `data`"
    )
    held_out: int = setting(
        10, at_least=3, help="of so many records of shards, one is for validation and one for test"
    )
    seed: int = setting(
        0, at_least=0, at_most=2**32 - 1, help="of order, initial values and dropout"
    )
    epochs: int = setting(40, at_least=1, help="passes over the training records")
    batch_size: int = setting(256, at_least=2, help="records a step; its pairs are the negatives")
    micro_batch: int | None = setting(
        None,
        at_least=1,
        help="records that an encoder holds at once in training (gradient caching: the same "
        "gradients in less memory, for one more forward pass); all of them if left out",
    )
    compute_dtype: str = setting(
        "float32",
        choices=COMPUTE_DTYPES,
        help="of activations and products; parameters, gradients and losses are float32",
    )
    learning_rate: float = setting(2e-3, above=0, help="at the end of warm-up; then a cosine to 0")
    weight_decay: float = setting(0.1, at_least=0, help="of AdamW, on matrices only")
    warmup_steps: int = setting(50, at_least=0, help="steps of linear warm-up")
    embedding_size: int = setting(128, at_least=1, help="width of the shared space")
    dropout: float = setting(0.1, at_least=0, below=1, help="rate in the encoders")
    modality_dropout: float = setting(
        0.1, at_least=0, below=1, help="chance that a field of a record is hidden"
    )
    face_rate: float = setting(
        0.5, at_least=0, at_most=1, help="chance that a picture comes from another face"
    )
    towers: tuple[str, ...] = setting(
        (), help="the fields that are embedded; all that can be, if left out"
    )
    fused: tuple[str, ...] = setting(
        (), help="towers whose fusion is one more; image and outline for glyphs, if left out"
    )
    loss: str = setting("info_nce", choices=LOSSES, help="what holds the towers together")
    fusion: str = setting("gated", choices=FUSIONS, help="how the fused towers are fused")
    limit: int | None = setting(
        None, at_least=2, help="records of each split, for a quick try; all of them if left out"
    )
    log_every: int = setting(5, at_least=1, help="steps between lines of metrics.jsonl")
    eval_every: int = setting(5, at_least=1, help="epochs between validations and checkpoints")
    save_every: int | None = setting(
        None, at_least=1, help="steps between checkpoints, beside those at validations"
    )
    eval_records: int = setting(
        4096, at_least=2, help="records of shards that are ranked in an evaluation, at most"
    )
    on_error: str = setting(
        "mask",
        choices=ON_ERROR,
        help="go on over records that cannot be read, or stop at the first",
    )
    error_fraction: float = setting(
        0.1, at_least=0, at_most=1, help="of the last 1000 records that may be bad; 1 is no limit"
    )
    error_run: int | None = setting(
        100, at_least=1, help="bad records in a row at which the run stops"
    )
    ledger: str | None = setting(
        None, help="a quarantine.jsonl: train on the records of `data` that it lists alone"
    )
    fields: Mapping[str, Any] | None = setting(
        None, help="what the parts of a record become; guessed from the first, if left out"
    )
    limits: Mapping[str, Any] | None = setting(
        None, help="on what a record may ask for: pixels, audio_seconds, member_bytes, ..."
    )

    def __post_init__(self) -> None:
        """Rejects what `check_settings` does, and settings that do not go together."""
        if self.data == GLYPHS and self.towers == ():
            object.__setattr__(self, "towers", GLYPH_TOWERS)
        check_settings(self)
        self._check_data()
        self._check_towers()
        if self.micro_batch is not None and self.micro_batch > self.batch_size:
            raise ValueError(
                f"micro_batch: expected at most batch_size {self.batch_size}, "
                f"got {self.micro_batch}"
            )

    @property
    def place(self) -> str:
        """What `data` is, in words."""
        return self.data if isinstance(self.data, str) else ", ".join(self.data)

    @property
    def fused_towers(self) -> tuple[str, ...]:
        """The towers whose fusion is one more modality; none where that is not asked for."""
        whole = self.data == GLYPHS and set(self.towers) >= set(GLYPH_FUSED)
        return self.fused or (GLYPH_FUSED if whole else ())

    def parts_of(self, tower: str) -> tuple[str, ...]:
        """The towers whose fields a tower reads: its own, or those that are fused."""
        return self.fused_towers if self.fused_towers and tower == FUSED else (tower,)

    def _check_data(self) -> None:
        own = ("validation", "test", "fields", "limits", "ledger")
        given = [name for name in own if vars(self)[name] is not None]
        if self.data == GLYPHS and given:
            raise ValueError(f"{given[0]}: goes with shards, and data is {GLYPHS!r}")
        if not isinstance(self.data, str):
            if not self.data or GLYPHS in self.data or len(set(self.data)) < len(self.data):
                raise ValueError(f"data: expected different shards, got {list(self.data)}")
            return
        close = self.data.isalpha() and difflib.get_close_matches(self.data, DATA_SETS, n=1)
        if self.data not in DATA_SETS and close and not Path(self.data).exists():
            raise ValueError(
                f"data: expected {GLYPHS} or shards, got {self.data!r}; did you mean {close[0]!r}?"
            )

    def _check_towers(self) -> None:
        for tower in self.towers if self.data == GLYPHS else ():
            if tower not in GLYPH_TOWERS:
                raise ValueError(
                    f"towers: expected a list, each entry one of {', '.join(GLYPH_TOWERS)}, "
                    f"got {tower!r}; {suggestion(tower, GLYPH_TOWERS)}"
                )
        repeated = len(set(self.towers)) != len(self.towers)
        if repeated or (self.towers and len(self.towers) < 2):
            raise ValueError(f"towers: expected at least 2 different fields, got {self.towers!r}")
        if self.fused and FUSED in self.towers:
            raise ValueError(
                f"fused: the fusion of {', '.join(self.fused)} is called {FUSED!r}, and so is a "
                f"tower: leave that out of `towers`, or give its field another name in [fields]"
            )
        known = not self.towers or set(self.fused) <= set(self.towers)
        if self.fused and (len(set(self.fused)) < 2 or not known):
            raise ValueError(
                f"fused: expected at least 2 of the towers {self.towers!r}, got {self.fused!r}"
            )


Source = str | Path | Sequence[str | Path]


def read_settings(source: Source) -> dict[str, Any]:
    """The settings that a data set's name, a TOML file or the place of shards, or several, gives.

    Each is checked on its own.

    Raises:
      ValueError: naming the file and key, or the data sets there are.
      OSError: if the file cannot be read.
    """
    if not isinstance(source, str | Path):
        for place in source:
            if str(place) in DATA_SETS or Path(place).suffix == ".toml":
                raise ValueError(f"{place}: one of several places of data must be of shards")
        return {"data": tuple(read_settings(place)["data"] for place in source)}
    path = Path(source)
    if str(source) in DATA_SETS or (path.suffix != ".toml" and _is_shards(str(source))):
        return {"data": str(source)}
    if path.suffix != ".toml" and not path.exists():
        raise ValueError(
            f"unknown data set {str(source)!r}: {suggestion(str(source), DATA_SETS)} "
            f"(or give a .toml file, or shards; data sets: {', '.join(DATA_SETS)})"
        )
    if path.suffix != ".toml" and path.is_file():
        raise ValueError(
            f"{path}: expected a data set ({', '.join(DATA_SETS)}) or a .toml file, or shards "
            f"({', '.join(SHARD_SUFFIXES)})"
        )
    mapping = read_toml(path)
    try:
        return settings_from(mapping, TrainConfig)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _is_toml(source: Source) -> bool:
    return isinstance(source, str | Path) and Path(source).suffix == ".toml"


def _is_shards(source: str) -> bool:
    """Whether it names a directory, shards by their suffix, a pattern of them or a URL."""
    named = source.lower().endswith(SHARD_SUFFIXES)
    return named or "://" in source or any(c in source for c in "*?[{") or Path(source).is_dir()


def load_config(
    source: Source,
    overrides: Mapping[str, Any] | None = None,
    *,
    file: str | Path | None = None,
) -> TrainConfig:
    """The configuration that `source`, a TOML file and `overrides` give, the later on top.

    Args:
      source: a data set's name, the place of shards, several, or a TOML file.
      overrides: settings.
      file: a TOML file of settings for the data that `source` names.

    Raises:
      ValueError: as `read_settings`, for an override that is not a setting, and for two TOML files.
      OSError: if a file cannot be read.
    """
    settings = merged_settings(source, overrides, file=file)
    place = source if file is None else file
    try:
        return TrainConfig(**settings)
    except ValueError as error:
        if not _is_toml(place):
            raise
        raise ValueError(f"{place}: {error}") from error


def merged_settings(
    source: Source,
    overrides: Mapping[str, Any] | None = None,
    *,
    file: str | Path | None = None,
) -> dict[str, Any]:
    """The settings of `load_config`, without the defaults of the others."""
    if file is not None and _is_toml(source):
        raise ValueError(f"give one TOML file: {source} and {file} are two")
    if file is not None and Path(file).suffix != ".toml":
        raise ValueError(f"{file}: expected a .toml file of settings")
    settings = read_settings(source)
    if file is not None:
        settings = read_settings(file) | settings
    return settings | settings_from(overrides or {}, TrainConfig)


def dump_config(config: TrainConfig) -> str:
    """TOML text that `load_config` reads back as an equal configuration."""
    return _HEADER + to_toml(config)
