"""B1: the rules of the configurations."""

import dataclasses
import pickle

import jax
import numpy as np
import pytest
from flax import nnx

from datarax.core import CrossModalOperatorConfig, DataraxModuleConfig, OperatorConfig

from .examples import FusionOperator, config

NOT_FIELDS = ["image", (), [], ["image", ""], ["image", 3], ["image", None], None, ("image",), 7]


def mean(data):
    return {"mean": data["image"].mean()}


@pytest.mark.parametrize("value", NOT_FIELDS, ids=repr)
@pytest.mark.parametrize("name", ["input_fields", "output_fields"])
def test_field_lists_are_lists_of_strings(untyped, name, value):
    fields = {"input_fields": ["image"], "output_fields": ["joint"]} | {name: value}
    with pytest.raises(ValueError, match=f"{name} must .*strings|{name} must be a non-empty list"):
        CrossModalOperatorConfig(**fields)


def test_an_output_is_not_repeated_an_input_may_be():
    with pytest.raises(ValueError, match=r"output_fields must not repeat.*\['joint', 'joint'\]"):
        config(out=["joint", "joint"])
    assert config("image", "image").input_fields == ["image", "image"]


def test_lists_stay_lists():
    given = ["image", "text"]
    made = CrossModalOperatorConfig(input_fields=given, output_fields=["joint"])
    assert type(made.input_fields) is list
    assert type(made.output_fields) is list
    assert made.input_fields == given


def test_defaults_of_the_page():
    made = CrossModalOperatorConfig(input_fields=["a"], output_fields=["b"])
    assert dataclasses.asdict(made) == {
        "cacheable": False,
        "batch_stats_fn": None,
        "precomputed_stats": None,
        "stochastic": False,
        "stream_name": None,
        "batch_strategy": "vmap",
        "input_fields": ["a"],
        "output_fields": ["b"],
        "operation": "fusion",
        "validate_alignment": True,
    }


@pytest.mark.parametrize("operation", ["fusion", "contrastive", "something of my own", ""])
def test_operation_takes_any_string(operation):
    assert config(operation=operation).operation == operation


def test_operation_is_a_string(untyped):
    with pytest.raises(ValueError, match="operation must be a string, got 3"):
        config(operation=3)


def test_stochastic_needs_a_stream():
    with pytest.raises(ValueError, match="stochastic operator needs stream_name"):
        config(stochastic=True)
    with pytest.raises(ValueError, match="stochastic operator needs stream_name"):
        OperatorConfig(stochastic=True, stream_name="")


def test_deterministic_forbids_a_stream():
    with pytest.raises(ValueError, match="stream_name is 'noise' but stochastic is False"):
        config(stream_name="noise")


def test_statistics_exclude_each_other():
    with pytest.raises(ValueError, match="batch_stats_fn excludes precomputed_stats"):
        DataraxModuleConfig(batch_stats_fn=mean, precomputed_stats={"mean": 0.0})
    with pytest.raises(ValueError, match="batch_stats_fn excludes precomputed_stats"):
        config(batch_stats_fn=mean, precomputed_stats={})


def test_statistics_have_their_types(untyped):
    with pytest.raises(ValueError, match="batch_stats_fn must be callable, got 3"):
        DataraxModuleConfig(batch_stats_fn=3)
    with pytest.raises(ValueError, match="precomputed_stats must be a dict, got list"):
        DataraxModuleConfig(precomputed_stats=[1])


@pytest.mark.parametrize("strategy", ["vmap", "scan"])
def test_strategies(strategy):
    assert OperatorConfig(batch_strategy=strategy).batch_strategy == strategy


@pytest.mark.parametrize("strategy", ["map", "", None, 3])
def test_unknown_strategies(untyped, strategy):
    with pytest.raises(ValueError, match=r"batch_strategy must be one of \('vmap', 'scan'\)"):
        OperatorConfig(batch_strategy=strategy)


def test_stochastic_without_rngs():
    with pytest.raises(ValueError, match=r"stochastic and needs rngs.*nnx.Rngs\(0, noise=1\)"):
        FusionOperator(config(stochastic=True, stream_name="noise"))


def test_rngs_without_the_stream():
    with pytest.raises(ValueError, match="rngs lack the stream 'noise' and a default stream"):
        FusionOperator(config(stochastic=True, stream_name="noise"), rngs=nnx.Rngs(params=0))


@pytest.mark.parametrize("made", [DataraxModuleConfig(), OperatorConfig(), config()])
def test_configs_are_frozen(made):
    for field in dataclasses.fields(made):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, field.name, None)


def test_each_config_inherits():
    assert CrossModalOperatorConfig.__mro__[1:3] == (OperatorConfig, DataraxModuleConfig)


def test_equality_never_compares_arrays():
    one, two = (config(precomputed_stats={"mean": np.full(3, x)}) for x in (0.0, 1.0))
    assert one == two
    assert hash(one) == hash(two)
    assert config("a") != config("b")
    assert config(batch_stats_fn=mean) != config()


def test_a_config_is_static_under_jit():
    traced = []

    @jax.jit
    def run(x):
        traced.append(1)
        return x

    static = jax.jit(lambda c, x: run(x) * len(c.input_fields), static_argnums=0)
    assert static(config(precomputed_stats={"mean": np.ones(3)}), 1.0) == 2
    assert static(config(precomputed_stats={"mean": np.zeros(3)}), 1.0) == 2
    assert len(traced) == 1


def test_replace_checks_again():
    with pytest.raises(ValueError, match="needs stream_name"):
        dataclasses.replace(config(), stochastic=True)


def test_configs_pickle():
    made = config(batch_stats_fn=mean)
    assert pickle.loads(pickle.dumps(made)) == made
