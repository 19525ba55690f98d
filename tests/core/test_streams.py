"""B9: which random streams a module needs."""

import pytest
from flax import nnx

from datarax.core import DataraxModule, DataraxModuleConfig, OperatorConfig

from .examples import FusionOperator, Noisy, config, stochastic


def part(stream, rngs):
    return Noisy(config(stochastic=True, stream_name=stream), rngs=rngs)


class Several(FusionOperator):
    """Holds parts that draw."""

    def __init__(self, config, *, rngs):
        super().__init__(config, rngs=rngs)
        self.first = part("shift", rngs)
        self.others = nnx.List([part("noise", rngs), part("shift", rngs), FusionOperator(config)])


def test_deterministic():
    assert FusionOperator(config()).requires_rng_streams() is None
    assert DataraxModule(DataraxModuleConfig()).requires_rng_streams() is None
    FusionOperator(config()).ensure_rng_streams([])
    with_unused = FusionOperator(config(), rngs=nnx.Rngs(0))
    assert with_unused.requires_rng_streams() is None


def test_stochastic():
    assert Noisy(stochastic(), rngs=nnx.Rngs(0)).requires_rng_streams() == ["noise"]


def test_parts():
    rngs = nnx.Rngs(0)
    found = Several(config(), rngs=rngs).requires_rng_streams()
    assert sorted(found) == ["noise", "shift"]


def test_the_own_stream_comes_first():
    class Outer(Noisy):
        def __init__(self, config, *, rngs):
            super().__init__(config, rngs=rngs)
            self.a_part = part("inner", rngs)

    outer = Outer(config(stochastic=True, stream_name="outer"), rngs=nnx.Rngs(0))
    assert outer.requires_rng_streams() == ["outer", "inner"]


def test_ensure():
    op = Several(config(), rngs=nnx.Rngs(0))
    op.ensure_rng_streams(["noise", "shift", "params"])
    with pytest.raises(
        ValueError, match=r"Several needs RNG streams \['noise'\].*\['shift', 'x'\]"
    ):
        op.ensure_rng_streams(["shift", "x"])
    with pytest.raises(ValueError, match=r"there are \[\]"):
        op.ensure_rng_streams([])


def test_names_on_the_operator():
    op = Noisy(stochastic(), rngs=nnx.Rngs(0))
    assert (op.stochastic, op.stream_name) == (True, "noise")
    op = FusionOperator(config())
    assert (op.stochastic, op.stream_name, op.rngs) == (False, None, None)
    assert OperatorConfig().stream_name is None
