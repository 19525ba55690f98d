"""The configuration of a training run, and its way to and from TOML."""

import dataclasses
from collections.abc import Mapping
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

DATA_SETS = ("glyphs",)
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
COMPUTE_DTYPES = ("float32", "bfloat16")
CONFIG_FILE = "config.toml"
_HEADER = "# The configuration of a datarax run: `datarax train` on this file repeats it.\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What a training run is: the same configuration gives the same run.

    Raises:
      ValueError: naming a field of the wrong type or out of range.
    """

    data: str = setting("glyphs", choices=DATA_SETS, help="the data set")
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
        ("image", "outline", "name"),
        choices=("image", "outline", "name"),
        help="the fields that are embedded",
    )
    loss: str = setting("info_nce", choices=LOSSES, help="what holds the towers together")
    fusion: str = setting("gated", choices=FUSIONS, help="how picture and outline are fused")
    limit: int | None = setting(
        None, at_least=2, help="records of each split, for a quick try; all of them if left out"
    )
    log_every: int = setting(5, at_least=1, help="steps between lines of metrics.jsonl")
    eval_every: int = setting(5, at_least=1, help="epochs between validations and checkpoints")

    def __post_init__(self) -> None:
        """Rejects what `check_settings` does, and settings that do not go together."""
        check_settings(self)
        if len(set(self.towers)) != len(self.towers) or len(self.towers) < 2:
            raise ValueError(f"towers: expected at least 2 different fields, got {self.towers!r}")
        if self.micro_batch is not None and self.micro_batch > self.batch_size:
            raise ValueError(
                f"micro_batch: expected at most batch_size {self.batch_size}, "
                f"got {self.micro_batch}"
            )


def read_settings(source: str | Path) -> dict[str, Any]:
    """The settings that a data set's name or a TOML file gives, checked one by one.

    Raises:
      ValueError: naming the file and key, or the data sets there are.
      OSError: if the file cannot be read.
    """
    if str(source) in DATA_SETS:
        return {"data": str(source)}
    path = Path(source)
    if path.suffix != ".toml" and not path.exists():
        raise ValueError(
            f"unknown data set {str(source)!r}: {suggestion(str(source), DATA_SETS)} "
            f"(or give a .toml file; data sets: {', '.join(DATA_SETS)})"
        )
    if path.suffix != ".toml" and path.is_file():
        raise ValueError(f"{path}: expected a data set ({', '.join(DATA_SETS)}) or a .toml file")
    mapping = read_toml(path)
    try:
        return settings_from(mapping, TrainConfig)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load_config(source: str | Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """The configuration that a data set's name or a TOML file gives, with `overrides` on top.

    Raises:
      ValueError: as `read_settings`, and for an override that is not a setting.
      OSError: if the file cannot be read.
    """
    settings = read_settings(source) | settings_from(overrides or {}, TrainConfig)
    try:
        return TrainConfig(**settings)
    except ValueError as error:
        if str(source) in DATA_SETS:
            raise
        raise ValueError(f"{source}: {error}") from error


def dump_config(config: TrainConfig) -> str:
    """TOML text that `load_config` reads back as an equal configuration."""
    return _HEADER + to_toml(config)
