"""Every configuration that cannot be is refused, with the value in the message."""

import dataclasses
import inspect
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from datarax import functional
from datarax.core import Batch, CrossModalOperatorConfig
from datarax.operators import (
    AlignmentOperatorConfig,
    ContrastiveOperator,
    ContrastiveOperatorConfig,
    Crop,
    CropConfig,
    CrossAttentionOperator,
    CrossAttentionOperatorConfig,
    FusionOperator,
    FusionOperatorConfig,
    ModalityDropoutConfig,
    NormalizeConfig,
    ReshapeConfig,
    ResizeConfig,
    Sequential,
    build_operator,
)
from datarax.operators.build import OPERATIONS

PAIR = {"input_fields": ["a", "b"], "output_fields": ["c"]}
FUSION = PAIR | {"features": {"a": 2, "b": 3}, "out_features": 4}
LOSS = PAIR | {"features": {"a": 2, "b": 2}}
ATTENTION = PAIR | {"features": {"a": 4, "b": 3}, "num_heads": 2}
FIELD = {"input_fields": ["x"], "output_fields": ["x"]}
DROPOUT = {"input_fields": ["a"], "output_fields": ["a"], "stochastic": True, "stream_name": "d"}

BAD = [
    (FusionOperatorConfig, FUSION | {"method": "concatenate"}, "method must be one of .*'concat'"),
    (FusionOperatorConfig, FUSION | {"gate": "relu"}, "gate must be one of"),
    (FusionOperatorConfig, FUSION | {"features": {"a": 2}}, r"width of each of \['a', 'b'\]"),
    (FusionOperatorConfig, FUSION | {"features": {"a": 2, "b": 0}}, r"features\['b'\].*got 0"),
    (FusionOperatorConfig, FUSION | {"out_features": -1}, "out_features must be a positive"),
    (ContrastiveOperatorConfig, LOSS | {"method": "clip"}, "method must be one of"),
    (ContrastiveOperatorConfig, LOSS | {"pairs": "some"}, "pairs must be one of"),
    (ContrastiveOperatorConfig, LOSS | {"features": {"a": 2, "b": 3}}, "different widths"),
    (ContrastiveOperatorConfig, LOSS | {"hidden_features": 3}, "needs projection_features"),
    (ContrastiveOperatorConfig, LOSS | {"projection_features": 0}, "projection_features must"),
    (
        ContrastiveOperatorConfig,
        LOSS | {"label_smoothing": 1.0},
        "label_smoothing must be a number",
    ),
    (
        ContrastiveOperatorConfig,
        LOSS | {"label_smoothing": 0.1, "method": "sigmoid"},
        "label_smoothing=0.1 is read by .*'info_nce'.*, got 'sigmoid'",
    ),
    (ContrastiveOperatorConfig, LOSS | {"max_scale": 0.0}, "max_scale must be a number"),
    (ContrastiveOperatorConfig, LOSS | {"initial_scale": 101.0}, "initial_scale must be a number"),
    (ContrastiveOperatorConfig, LOSS | {"stochastic": True, "stream_name": "s"}, "deterministic"),
    (
        ContrastiveOperatorConfig,
        {"input_fields": ["a"], "output_fields": ["c"], "features": {"a": 2}},
        "two or more fields",
    ),
    (ContrastiveOperatorConfig, LOSS | {"output_fields": ["c", "d"]}, "1 or 3 fields, got 2"),
    (CrossAttentionOperatorConfig, ATTENTION | {"num_heads": 3}, "does not divide"),
    (CrossAttentionOperatorConfig, ATTENTION | {"num_heads": 0}, "num_heads must"),
    (CrossAttentionOperatorConfig, ATTENTION | {"head_dim": 0}, "head_dim must"),
    (CrossAttentionOperatorConfig, ATTENTION | {"out_features": 0}, "out_features must"),
    (CrossAttentionOperatorConfig, ATTENTION | {"input_fields": ["a"]}, "must hold 2 fields"),
    (AlignmentOperatorConfig, PAIR | {"method": "mse"}, "method must be one of .*squared_error"),
    (AlignmentOperatorConfig, PAIR | {"normalize": "false"}, "normalize must be True or False"),
    (
        AlignmentOperatorConfig,
        PAIR | {"method": "cka", "debiased": 1},
        "debiased must be True or False, got 1",
    ),
    (AlignmentOperatorConfig, PAIR | {"logit_scale": float("inf")}, "logit_scale must be a number"),
    (AlignmentOperatorConfig, PAIR | {"power": 0.0}, "power must be a number"),
    (AlignmentOperatorConfig, PAIR | {"t": -1.0}, "t must be a number"),
    (AlignmentOperatorConfig, PAIR | {"uniformity_weight": -1.0}, "uniformity_weight must"),
    (ModalityDropoutConfig, DROPOUT | {"rate": 1.5}, r"rate must be a number in \[0, 1\], got 1.5"),
    (
        ModalityDropoutConfig,
        DROPOUT | {"rate": 0.5, "output_fields": ["z"]},
        r"output_fields must be \['a'\]",
    ),
    (
        ModalityDropoutConfig,
        {"input_fields": ["a"], "output_fields": ["a"], "rate": 0.5},
        "give stochastic=True",
    ),
    (ResizeConfig, FIELD | {"size": (0, 3)}, "size must be a positive integer"),
    (ResizeConfig, FIELD | {"size": (2, 2), "method": "area"}, "method must be one of"),
    (CropConfig, FIELD | {"size": (2, 2), "offset": (-1, 0)}, "offset must"),
    (CropConfig, FIELD | {"size": (2, 2), "offset": (1.5, 0)}, "offset must be an integer"),
    (CropConfig, FIELD | {"size": (2, 2), "offset": ("a", "b")}, "offset must be an integer"),
    (ReshapeConfig, FIELD | {"shape": (-1, -1)}, "one of which may be -1"),
    (NormalizeConfig, FIELD | {"mean": 0.0}, "both mean and std"),
    (NormalizeConfig, FIELD | {"mean": 0.0, "std": 0.0}, "std must be a number"),
    (NormalizeConfig, FIELD | {"scale": 0.0}, "scale must be a number"),
]


@pytest.mark.parametrize(("config", "options", "message"), BAD)
def test_config_refuses(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_operators_refuse_what_they_cannot_do():
    plain = CrossModalOperatorConfig(**PAIR)
    with pytest.raises(ValueError, match="needs a CrossAttentionOperatorConfig"):
        CrossAttentionOperator(plain, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="give rngs"):
        FusionOperator(FusionOperatorConfig(**FUSION))
    with pytest.raises(ValueError, match="output_fields must hold 1 fields, got 2"):
        FusionOperator(CrossModalOperatorConfig(input_fields=["a"], output_fields=["b", "c"]))
    with pytest.raises(ValueError, match="give rngs"):
        ContrastiveOperator(ContrastiveOperatorConfig(**LOSS, projection_features=2))
    with pytest.raises(ValueError, match="at least one"):
        Sequential([])
    with pytest.raises(ValueError, match="relates rows"):
        ContrastiveOperator(ContrastiveOperatorConfig(**LOSS)).apply({}, {}, None)


def test_fields_that_a_config_names_must_be_there():
    x = jnp.ones((2, 2))
    op = ContrastiveOperator(ContrastiveOperatorConfig(**LOSS, ids_field="id"))
    with pytest.raises(KeyError, match=r"lacks fields \['id'\]; it has \['a', 'b'\]"):
        op(Batch.from_parts({"a": x, "b": x}))
    config = CrossAttentionOperatorConfig(**ATTENTION, context_mask="keep")
    attend = CrossAttentionOperator(config, rngs=nnx.Rngs(0))
    with pytest.raises(KeyError, match="'keep'"):
        attend(Batch.from_parts({"a": jnp.ones((2, 3, 4)), "b": jnp.ones((2, 3, 3))}))


def test_windows_must_be_inside():
    crop = Crop(CropConfig(**FIELD, size=(3, 3), offset=(1, 1)))
    with pytest.raises(ValueError, match=r"window of \(3, 3\) at \(1, 1\) is not inside \(3, 3\)"):
        crop(Batch.from_parts({"x": jnp.ones((1, 3, 3))}))


def test_traced_windows_move_to_the_nearest_inside():
    image = jnp.arange(16).reshape(4, 4, 1)
    window = jax.jit(lambda top: functional.crop(image, top, 0, size=(2, 1)).ravel())
    assert window(jnp.int32(-1)).tolist() == [0, 4]
    assert window(jnp.int32(9)).tolist() == [8, 12]
    with pytest.raises(TypeError, match="top must be a whole number, got float32"):
        functional.crop(image, jnp.float32(1), 0, size=(2, 1))
    for call in (
        partial(inspect.unwrap(functional.resize), image),
        partial(inspect.unwrap(functional.resized_crop), image, jnp.ones(4)),
    ):
        with pytest.raises(ValueError, match=r"size must be \(height, width\), both positive"):
            call(size=(0, 2))
        with pytest.raises(ValueError, match="method must be one of"):
            call(size=(2, 2), method="area")


OF_THE_PAGE = ("fusion", "cross_attention", "contrastive", "alignment")


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name not in OF_THE_PAGE])
def test_a_plain_config_is_refused(operation):
    own, operator = OPERATIONS[operation]
    with pytest.raises(ValueError, match=rf"needs a {own.__name__}, .* got CrossModal"):
        operator(CrossModalOperatorConfig(**PAIR), rngs=nnx.Rngs(0))


def test_build_from_a_table():
    table = {"operation": "fusion", "method": "gated"} | FUSION
    op = build_operator(table, rngs=nnx.Rngs(0))
    assert isinstance(op.config, FusionOperatorConfig)
    assert op.config.method == "gated"
    resize = build_operator({"operation": "resize", "size": [2, 3], **FIELD})
    assert resize.config.size == (2, 3)
    half = build_operator({**table, "compute_dtype": "bfloat16"}, rngs=nnx.Rngs(0))
    spec = {name: jax.ShapeDtypeStruct((w,), jnp.float32) for name, w in op.config.features.items()}
    written = op.config.output_fields[0]
    assert op.output_spec(spec)[written].dtype == jnp.float32
    assert half.output_spec(spec)[written].dtype == jnp.bfloat16
    plain = build_operator({"operation": "alignment", **PAIR})
    assert type(plain.config) is CrossModalOperatorConfig


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"operation": "fushion"} | FUSION, "did you mean 'fusion'"),
        ({"operation": "xyz"} | FUSION, "choose one of"),
        ({"operation": "fusion", "metod": "gated"} | FUSION, "'metod'.*did you mean 'method'"),
        ({"operation": "fusion", "method": "gatd"} | FUSION, "method must be one of"),
        ({"operation": "resize", **FIELD}, r"needs \['size'\]"),
        ({"compute_dtype": "half"} | FUSION, r"compute_dtype must be one of \['float32', .*'half'"),
    ],
)
def test_build_says_what_is_wrong(table, message):
    with pytest.raises(TypeError, match="built from a table"):
        build_operator([table])
    with pytest.raises(ValueError, match=message):
        build_operator(table, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("operator", "config", "change"),
    [
        (FusionOperator, FusionOperatorConfig(**FUSION, method="gated"), {"gate": "sigmoid"}),
        (FusionOperator, FusionOperatorConfig(**FUSION), {"out_features": 7}),
        (ContrastiveOperator, ContrastiveOperatorConfig(**LOSS), {"max_scale": 5.0}),
        (CrossAttentionOperator, CrossAttentionOperatorConfig(**ATTENTION), {"num_heads": 1}),
    ],
)
def test_a_copy_cannot_change_what_parts_were_built_from(operator, config, change):
    op = operator(config, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=f"copy cannot change {list(change)}".replace("[", r"\[")):
        op.copy(config=dataclasses.replace(config, **change))
    assert op.copy(config=dataclasses.replace(config, cacheable=True)).config.cacheable
    with pytest.raises(TypeError, match="needs a"):
        op.copy(config=CrossModalOperatorConfig(**PAIR))
