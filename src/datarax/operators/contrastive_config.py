"""What a contrastive loss can be told, and which method reads what."""

import math
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

from datarax.core.config import check_flag
from datarax.core.cross_modal import CrossModalOperatorConfig
from datarax.operators.checks import (
    check_choice,
    check_count,
    check_features,
    check_field_name,
    check_number,
    check_options,
    check_positive,
)

ContrastiveMethod = Literal[
    "info_nce", "sigmoid", "supervised", "nt_xent", "triplet", "volume", "triangle", "symile"
]
Pairs = Literal["all", "anchor"]
Directions = Literal["both", "a_to_b", "b_to_a"]
Mining = Literal["sum", "hard", "semi_hard"]
Distance = Literal["cosine", "euclidean"]
SymileNegatives = Literal["n_squared", "n"]
Similarity = Literal["cosine", "late_interaction"]
TokenReduction = Literal["mean", "sum"]
Enqueue = Literal["after", "before"]
Collective = Literal["gather", "ring"]

INITIAL_SCALES = {"sigmoid": 10.0, "nt_xent": 10.0}  # any other method: CLIP's 1/0.07

_SCALE = ("initial_scale", "max_scale")
_PAIRS = ("pairs", "pair_weights")
_SCALES = (*_SCALE, *_PAIRS, "per_pair_temperature")
_TOKENS = ("token_masks", "token_reduction")
_EXTRA = ("negatives_fields", "queue_size", "enqueue")
_MESH = ("axis_name", "collective")
READ_BY: dict[str, tuple[str, ...]] = {
    "info_nce": (
        *_SCALES,
        "directions",
        "label_smoothing",
        "decoupled",
        "unpaired_negatives",
        "ids_field",
        "similarity",
        *_TOKENS,
        *_EXTRA,
        *_MESH,
    ),
    "sigmoid": (
        *_SCALES,
        "initial_bias",
        "relative_bias",
        "ids_field",
        "similarity",
        *_TOKENS,
        *_MESH,
    ),
    "supervised": (*_SCALES, "directions", "ids_field", "teacher_fields", "distillation"),
    "nt_xent": (*_SCALES, "decoupled"),
    "triplet": (*_PAIRS, "directions", "ids_field", "margin", "mining", "distance"),
    "volume": (*_SCALE, "directions", "label_smoothing", "ids_field"),
    "triangle": (*_SCALE, "directions", "label_smoothing", "ids_field", "triangle_root"),
    "symile": (*_SCALE, "symile_negatives"),
}
OF_ALL_FIELDS = ("volume", "triangle", "symile")  # the others are of two fields
OF_SIMILARITY = {"late_interaction": _TOKENS, "cosine": _MESH}


@dataclass(frozen=True)
class ContrastiveOperatorConfig(CrossModalOperatorConfig):
    """Which contrastive loss, on which embeddings.

    An option that the method does not read must keep its default; `READ_BY` lists who reads what.

    Attributes:
      method: the loss. Of every pair of fields: `functional.info_nce` (CLIP), `"sigmoid"` (SigLIP),
        `"supervised"` (SupCon, soft targets of a teacher), `"nt_xent"` (SimCLR), `"triplet"` (VSE).
        Of all fields at once: `"volume"` (GRAM), `"triangle"` (three fields), `"symile"`.
      features: the width of each input field.
      projection_features: width of the shared space; `None` takes the fields as they are, of
        equal width.
      hidden_features: hidden width of the projection heads; `None` is a linear head.
      pairs: all pairs of fields, or those of the first with each other one (ImageBind).
      pair_weights: one weight a pair, in the order of `itertools.combinations` of the fields, or
        for `"anchor"` of the other fields; `None` weighs all alike.
      per_pair_temperature: learn one temperature and bias for each pair instead of one for all.
      directions: both softmaxes (or hinges), or one; `"a_to_b"` has the first field's rows as
        anchors.
      label_smoothing: in [0, 1). CLIP has none, GRAM 0.1.
      decoupled: leave the positive out of the denominator (DCL), which helps small batches.
      unpaired_negatives: a row that lacks one of two modalities stays a negative with the other
        (TorchMultimodal); otherwise it is left out (big_vision).
      ids_field: field of integers `[]`; rows that share one are positives of each other, and a row
        that lacks it is left out.
      teacher_fields: for each input field the field `[d]` of a teacher's embeddings, whose cosines
        by the same temperature are soft targets; for example of a momentum encoder (ALBEF).
      distillation: the teacher's share of the target, in [0, 1]; 0.4 is ALBEF's.
      margin: of the triplet, in units of the similarity; 0.2 is VSE++'s.
      mining: the hardest of the negatives that are less similar than the positive (FaceNet), the
        hardest of all (VSE++), which collapses unless the towers are trained already, or the sum
        over all (VSE).
      distance: the triplet's similarity is the cosine, or minus the Euclidean distance of unit
        vectors.
      triangle_root: the area, as in the paper; otherwise twice its square, as in the authors' code.
      symile_negatives: all n^(M-1) tuples, in n^M memory; or `"n"`, drawn anew at each call, which
        needs `stochastic` and `stream_name`. After `op.eval()` the draw is always the same.
      similarity: of embeddings `[d]`, or `"late_interaction"` of tokens `[t, d]` (FILIP, ColBERT).
      token_masks: for an input field the field bool `[t]` of its tokens that are there.
      token_reduction: over an anchor's tokens, the mean (FILIP) or the sum (ColBERT).
      negatives_fields: for an input field the field `[k, width]` of hard negatives that a record
        brings; they are negatives of every row, and positives of none.
      queue_size: the number of past records to contrast with; see `nn.EmbeddingQueue`. Only calls
        in training enqueue. A slot counts where it holds the modality.
      enqueue: the batch enters the queue after the loss (MoCo), or before it (XBM), where a row
        knows its own copy by `ids_field`.
      initial_scale: the inverse temperature at the start; `None` is 1/0.07 (CLIP), for the sigmoid
        loss 10 (SigLIP), for NT-Xent 10 (SimCLR).
      max_scale: bound of the learned inverse temperature; 100 is CLIP's. The products of symile are
        smaller than cosines: give it more.
      initial_bias: the start of the sigmoid loss's bias; -10 is SigLIP's, and
        `functional.sigmoid_bias_init` gives it for a batch size.
      relative_bias: learn the bias relative to the scale, as a similarity.
      axis_name: the axis of a mesh over which the batch is spread, under `shard_map` or `jax.jit`.
        `None` takes it from the arrays, where their type shows it or their mesh has but one.
      collective: how devices exchange embeddings, with `axis_name`; `None` chooses by memory. See
        `functional.info_nce`.

    Raises:
      ValueError: for an unknown choice, sizes that do not fit, a number out of range, an option
        that the method does not read, or `stochastic` where nothing is drawn.
    """

    operation: str = field(default="contrastive", kw_only=True)
    method: ContrastiveMethod = field(default="info_nce", kw_only=True)
    features: dict[str, int] = field(kw_only=True, hash=False)
    projection_features: int | None = field(default=None, kw_only=True)
    hidden_features: int | None = field(default=None, kw_only=True)
    pairs: Pairs = field(default="all", kw_only=True)
    pair_weights: tuple[float, ...] | None = field(default=None, kw_only=True)
    per_pair_temperature: bool = field(default=False, kw_only=True)
    directions: Directions = field(default="both", kw_only=True)
    label_smoothing: float = field(default=0.0, kw_only=True)
    decoupled: bool = field(default=False, kw_only=True)
    unpaired_negatives: bool = field(default=False, kw_only=True)
    ids_field: str | None = field(default=None, kw_only=True)
    teacher_fields: dict[str, str] | None = field(default=None, kw_only=True, hash=False)
    distillation: float = field(default=0.4, kw_only=True)
    margin: float = field(default=0.2, kw_only=True)
    mining: Mining = field(default="semi_hard", kw_only=True)
    distance: Distance = field(default="cosine", kw_only=True)
    triangle_root: bool = field(default=True, kw_only=True)
    symile_negatives: SymileNegatives = field(default="n_squared", kw_only=True)
    similarity: Similarity = field(default="cosine", kw_only=True)
    token_masks: dict[str, str] | None = field(default=None, kw_only=True, hash=False)
    token_reduction: TokenReduction = field(default="mean", kw_only=True)
    negatives_fields: dict[str, str] | None = field(default=None, kw_only=True, hash=False)
    queue_size: int | None = field(default=None, kw_only=True)
    enqueue: Enqueue = field(default="after", kw_only=True)
    initial_scale: float | None = field(default=None, kw_only=True)
    max_scale: float = field(default=100.0, kw_only=True)
    initial_bias: float = field(default=-10.0, kw_only=True)
    relative_bias: bool = field(default=False, kw_only=True)
    axis_name: str | None = field(default=None, kw_only=True)
    collective: Collective | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in _CHOICES.items():
            check_choice(name, vars(self)[name], choices)
        if self.collective is not None:
            check_choice("collective", self.collective, Collective)
        for name in _FLAGS:
            check_flag(name, vars(self)[name])
        check_options(self, self.method, READ_BY)
        check_options(self, self.similarity, OF_SIMILARITY)
        self._check_fields()
        self._check_sizes()
        self._check_numbers()
        self._check_pair_weights()
        self._check_companions()
        self._check_stochastic()

    @property
    def field_pairs(self) -> list[tuple[str, str]]:
        """The pairs of fields that are compared, in the order of their weights."""
        first = self.input_fields[0]
        every = combinations(self.input_fields, 2)
        return [(a, b) for a, b in every if self.pairs == "all" or a == first]

    def _check_fields(self) -> None:
        check_features(self.features, self.input_fields)
        fields = len(self.input_fields)
        if fields < 2 or len(set(self.input_fields)) < fields:
            raise ValueError(f"input_fields must hold two or more fields, got {self.input_fields}")
        if self.method == "triangle" and fields != 3:
            raise ValueError(f"method 'triangle' needs 3 input_fields, got {self.input_fields}")
        check_count("output_fields", self.output_fields, [1, 1 + fields])
        check_field_name("ids_field", self.ids_field)
        if self.axis_name is not None and not (isinstance(self.axis_name, str) and self.axis_name):
            raise ValueError(f"axis_name must be the name of an axis, got {self.axis_name!r}")
        _check_mapping("teacher_fields", self.teacher_fields, self.input_fields, every=True)
        _check_mapping("token_masks", self.token_masks, self.input_fields)
        _check_mapping("negatives_fields", self.negatives_fields, self.input_fields)

    def _check_sizes(self) -> None:
        if self.projection_features is not None:
            check_positive("projection_features", self.projection_features)
        elif self.hidden_features is not None:
            raise ValueError("hidden_features needs projection_features")
        elif len(set(self.features.values())) > 1:
            raise ValueError(
                f"fields of different widths {self.features} need projection_features to meet"
            )
        for name in ("hidden_features", "queue_size"):
            if vars(self)[name] is not None:
                check_positive(name, vars(self)[name])

    def _check_numbers(self) -> None:
        check_number("label_smoothing", self.label_smoothing, low=0, high=0.999)
        check_number("distillation", self.distillation, low=0, high=1)
        check_number("margin", self.margin, low=0, high=math.inf)
        check_number("max_scale", self.max_scale, low=0, high=math.inf, open_low=True)
        check_number("initial_bias", self.initial_bias, low=-math.inf, high=math.inf)
        if self.initial_scale is not None:
            check_number(
                "initial_scale", self.initial_scale, low=0, high=self.max_scale, open_low=True
            )

    def _check_pair_weights(self) -> None:
        if self.pair_weights is None:
            return
        count = len(self.field_pairs)
        if not isinstance(self.pair_weights, tuple) or len(self.pair_weights) != count:
            raise ValueError(
                f"pair_weights must be a tuple of {count} numbers, one for each of "
                f"{self.field_pairs}, got {self.pair_weights!r}"
            )
        for weight in self.pair_weights:
            check_number("pair_weights", weight, low=0, high=math.inf)
        if not any(self.pair_weights):
            raise ValueError(f"pair_weights must not all be 0, got {self.pair_weights}")

    def _check_companions(self) -> None:
        """Reject options that are of no use without another, or exclude it."""
        if self.method == "supervised" and self.ids_field is None and self.teacher_fields is None:
            raise ValueError("method 'supervised' needs ids_field or teacher_fields")
        if self.teacher_fields is None and self.distillation != 0.4:
            raise ValueError(f"distillation={self.distillation} needs teacher_fields")
        if self.decoupled and self.label_smoothing:
            raise ValueError("decoupled has no target to smooth: label_smoothing must be 0")
        if self.queue_size is None and self.enqueue != "after":
            raise ValueError(f"enqueue={self.enqueue!r} needs queue_size")
        if self.enqueue == "before" and self.ids_field is None:
            raise ValueError(
                "enqueue='before' puts each row among its own negatives: give ids_field, by which "
                "they are told apart"
            )
        if self.queue_size is not None and self.negatives_fields is not None:
            raise ValueError("queue_size and negatives_fields exclude each other: give one")
        if self.collective is not None and self.axis_name is None:
            raise ValueError(f"collective={self.collective!r} needs axis_name, the axis of a mesh")
        tokens = self.similarity == "late_interaction"
        if tokens and (self.queue_size is not None or self.negatives_fields is not None):
            raise ValueError(
                "similarity='late_interaction' takes neither queue_size nor negatives_fields"
            )

    def _check_stochastic(self) -> None:
        draws = self.method == "symile" and self.symile_negatives == "n"
        if draws and not self.stochastic:
            raise ValueError(
                "symile_negatives='n' draws: give stochastic=True and stream_name, or "
                "symile_negatives='n_squared'"
            )
        if self.stochastic and not draws:
            raise ValueError(
                "the losses are deterministic, but for method 'symile' with symile_negatives='n': "
                "put a stochastic operator before them"
            )


_CHOICES: dict[str, Any] = {
    "method": ContrastiveMethod,
    "pairs": Pairs,
    "directions": Directions,
    "mining": Mining,
    "distance": Distance,
    "symile_negatives": SymileNegatives,
    "similarity": Similarity,
    "token_reduction": TokenReduction,
    "enqueue": Enqueue,
}
_FLAGS = (
    "per_pair_temperature",
    "decoupled",
    "unpaired_negatives",
    "triangle_root",
    "relative_bias",
)


def _check_mapping(name: str, value: Any, fields: list[str], *, every: bool = False) -> None:
    """Reject what is no dict from input fields to names of fields; `every`: from all of them."""
    if value is None:
        return
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{name} must map input fields to fields, got {value!r}")
    unknown = sorted(set(value) - set(fields))
    lacking = sorted(set(fields) - set(value)) if every else []
    if unknown or lacking:
        raise ValueError(
            f"{name} must map {'each of' if every else 'some of'} {fields} to a field, "
            f"got {value!r}"
        )
    for other in value.values():
        if not isinstance(other, str) or not other:
            raise ValueError(f"{name} must map to names of fields, got {other!r}")
