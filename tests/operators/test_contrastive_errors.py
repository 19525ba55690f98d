"""What the configurations of contrastive losses and of matching refuse, and what a batch lacks."""

import jax.numpy as jnp
import pytest
from flax import nnx

from datarax.core import Batch, CrossModalOperatorConfig
from datarax.operators import (
    ContrastiveOperator,
    ContrastiveOperatorConfig,
    MatchingOperator,
    MatchingOperatorConfig,
    build_operator,
)
from datarax.operators.contrastive_config import READ_BY

PAIR = {"input_fields": ["a", "b"], "output_fields": ["c"], "features": {"a": 2, "b": 2}}
TRIO = PAIR | {"input_fields": ["a", "b", "c"], "features": {"a": 2, "b": 2, "c": 2}}
DRAWS = {"stochastic": True, "stream_name": "s"}
OTHERS = {
    "pairs": "anchor",
    "pair_weights": (1.0,),
    "per_pair_temperature": True,
    "directions": "a_to_b",
    "label_smoothing": 0.1,
    "decoupled": True,
    "unpaired_negatives": True,
    "ids_field": "id",
    "teacher_fields": {"a": "ta", "b": "tb"},
    "distillation": 0.5,
    "margin": 0.5,
    "mining": "sum",
    "distance": "euclidean",
    "triangle_root": False,
    "symile_negatives": "n",
    "similarity": "late_interaction",
    "token_masks": {"a": "keep"},
    "token_reduction": "sum",
    "negatives_fields": {"b": "n"},
    "queue_size": 4,
    "enqueue": "before",
    "initial_scale": 2.0,
    "max_scale": 50.0,
    "initial_bias": -1.0,
    "relative_bias": True,
}


@pytest.mark.parametrize("method", READ_BY)
def test_a_method_refuses_what_it_does_not_read(method):
    refused = set(OTHERS) - set(READ_BY[method])
    assert refused
    for name in refused:
        with pytest.raises(ValueError, match=f"{name}=.* is read by .* only, got '{method}'"):
            ContrastiveOperatorConfig(**PAIR, method=method, **{name: OTHERS[name]})


BAD = [
    ({"method": "supcon"}, r"method must be one of \['info_nce', .*'symile'\], got 'supcon'"),
    ({"directions": "ab"}, "directions must be one of .*'a_to_b'"),
    ({"method": "triplet", "mining": "easy"}, "mining must be one of .*'semi_hard'"),
    ({"method": "triplet", "distance": "l1"}, "distance must be one of .*'euclidean'"),
    ({"method": "triplet", "margin": -1.0}, "margin must be a number"),
    ({"method": "symile", "symile_negatives": "all"}, "symile_negatives must be one of"),
    ({"method": "symile", "symile_negatives": "n"}, "give stochastic=True and stream_name"),
    ({"method": "symile", **DRAWS}, "the losses are deterministic"),
    ({"similarity": "dot"}, "similarity must be one of .*'late_interaction'"),
    ({"token_reduction": "max"}, "token_reduction must be one of"),
    ({"enqueue": "now"}, "enqueue must be one of"),
    ({"decoupled": 1}, "decoupled must be True or False, got 1"),
    ({"token_masks": {"a": "k"}}, r"read by \['late_interaction'\] only, got 'cosine'"),
    ({"method": "supervised"}, "'supervised' needs ids_field or teacher_fields"),
    (
        {"method": "supervised", "ids_field": "id", "distillation": 0.5},
        "distillation=0.5 needs teacher_fields",
    ),
    (
        {"method": "supervised", "teacher_fields": {"a": "ta"}},
        r"teacher_fields must map each of \['a', 'b'\]",
    ),
    ({"ids_field": 3}, "ids_field must be the name of a field, got 3"),
    ({"method": "triangle"}, "method 'triangle' needs 3 input_fields"),
    ({"negatives_fields": {"x": "n"}}, r"negatives_fields must map some of \['a', 'b'\]"),
    ({"negatives_fields": ["n"]}, "negatives_fields must map input fields to fields"),
    ({"negatives_fields": {"a": 3}}, "negatives_fields must map to names of fields, got 3"),
    ({"decoupled": True, "label_smoothing": 0.1}, "decoupled has no target to smooth"),
    ({"enqueue": "before"}, "enqueue='before' needs queue_size"),
    ({"enqueue": "before", "queue_size": 4}, "give ids_field"),
    ({"queue_size": 4, "negatives_fields": {"b": "n"}}, "exclude each other"),
    ({"queue_size": 0}, "queue_size must be a positive integer, got 0"),
    ({"queue_size": 4, "similarity": "late_interaction"}, "takes neither queue_size nor"),
    ({"pair_weights": [1.0]}, "pair_weights must be a tuple of 1 numbers"),
    ({"pair_weights": (1.0, 2.0)}, r"one for each of \[\('a', 'b'\)\], got \(1.0, 2.0\)"),
    ({"pair_weights": (-1.0,)}, "pair_weights must be a number"),
    ({"pair_weights": (0.0,)}, "pair_weights must not all be 0"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_a_loss_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveOperatorConfig(**PAIR, **options)


MISMATCHED = {"features": {"a": 2, "b": 3}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "sum"}, "fusion must be one of .*'product'"),
        (MISMATCHED, "fusion 'all' needs equal widths"),
        (MISMATCHED | {"fusion": "concat"}, "need similarity_fields to compare"),
        ({"similarity_fields": {"a": "x"}}, r"similarity_fields must map each of \['a', 'b'\]"),
        ({"hidden_features": 0}, "hidden_features must be a positive integer"),
        ({"ids_field": 3}, "ids_field must be the name of a field, got 3"),
        (
            {"similarity_fields": {"a": "x", "b": 2}},
            r"similarity_fields\['b'\] must be the name of a field, got 2",
        ),
        ({"sampling_scale": -1.0}, "sampling_scale must be a number"),
        ({"sampling_scale": 3.0}, "sampling_scale=3.0 is read where negatives are drawn"),
        ({"margin": 3.0}, "margin must be a number"),
        ({"output_fields": ["c", "d", "e"]}, "output_fields must hold 1 or 2 fields"),
        ({"input_fields": ["a", "b", "c"]}, "input_fields must hold 2 fields"),
    ],
)
def test_matching_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        MatchingOperatorConfig(**(PAIR | options))


X = jnp.ones((3, 2))
TOKENS = {"similarity": "late_interaction", "token_masks": {"a": "m"}}
MANY = {"a": jnp.ones((3, 4, 2)), "b": jnp.ones((3, 4, 2))}


def loss(**options):
    return ContrastiveOperator(ContrastiveOperatorConfig(**PAIR, **options))


@pytest.mark.parametrize(
    ("options", "data", "error", "message"),
    [
        ({}, {"b": X[:, :1]}, ValueError, r"field 'b' must have shape \[n, 2\].*got \[3, 1\]"),
        ({"similarity": "late_interaction"}, {}, ValueError, r"'a' must have shape \[n, t, 2\]"),
        ({}, {"a": X.astype(int)}, TypeError, "field 'a' must be floating point, got int32"),
        (TOKENS, MANY | {"m": jnp.ones((3, 2))}, TypeError, "field 'm' must be boolean"),
        (
            TOKENS,
            MANY | {"m": jnp.ones((3, 5), bool)},
            ValueError,
            r"field 'm' must have shape \(3, 4\), got \(3, 5\)",
        ),
        ({"negatives_fields": {"b": "n"}}, {}, KeyError, r"lacks fields \['n'\]"),
        ({"negatives_fields": {"b": "n"}}, {"n": X}, ValueError, r"'n' must have .*\[n, k, 2\]"),
        ({"ids_field": "id"}, {"id": X[:, 0]}, TypeError, "ids must be integers, got float32"),
        ({"method": "supervised", "ids_field": "id"}, {}, KeyError, r"lacks fields \['id'\]"),
    ],
)
def test_a_batch_that_does_not_fit(options, data, error, message):
    with pytest.raises(error, match=message):
        loss(**options)(Batch.from_parts({"a": X, "b": X} | data))


def test_matching_needs_its_config_its_rngs_and_a_batch():
    config = MatchingOperatorConfig(**PAIR, ids_field="id")
    plain = CrossModalOperatorConfig(input_fields=["a", "b"], output_fields=["c"])
    with pytest.raises(ValueError, match="needs a MatchingOperatorConfig"):
        MatchingOperator(plain, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="give rngs"):
        MatchingOperator(config)
    op = MatchingOperator(config, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="relates rows"):
        op.apply({}, {}, None)
    with pytest.raises(KeyError, match=r"lacks fields \['id'\]"):
        op(Batch.from_parts({"a": X, "b": X}))
    wide = {"a": X, "b": jnp.ones((3, 4)), "id": jnp.arange(3)}
    with pytest.raises(ValueError, match=r"'b' must have shape \[n, 2\] by features, got \[3, 4\]"):
        op(Batch.from_parts(wide))


def test_a_table_of_a_file_gives_a_loss():
    table = {"operation": "contrastive", "method": "triplet", "mining": "sum", **PAIR}
    assert build_operator(table).config.mining == "sum"
    weights = TRIO | {"pair_weights": [1.0, 2.0, 0.0], "method": "nt_xent"}
    op = build_operator({"operation": "contrastive", **weights})
    assert op.config.pair_weights == (1.0, 2.0, 0.0)
    with pytest.raises(ValueError, match=r"method must be one of \['info_nce'.*got 'tripplet'"):
        build_operator({"operation": "contrastive", **PAIR, "method": "tripplet"})
    head = build_operator({"operation": "matching", **PAIR}, rngs=nnx.Rngs(0))
    assert head.config.fusion == "all"
