"""The model of a run can be made of every loss and fusion that the settings name."""

import jax
import pytest
from flax import nnx

from datarax.pipeline import Pipeline
from datarax.sources import GlyphsSource
from datarax.train import TrainConfig
from datarax.train.config import FUSIONS, LOSSES
from datarax.train.model import build


def losses_of(config):
    batch = next(Pipeline(GlyphsSource("train", limit=4), batch_size=4, seed=0))
    graph, state = nnx.split(nnx.eval_shape(lambda: build(config)))

    def run(state):
        model = nnx.merge(graph, state)
        return model(batch.replace(metadata=None), rng_key=jax.random.key(0))

    return jax.eval_shape(run, state)


@pytest.mark.parametrize(
    "settings", [{"loss": x} for x in LOSSES] + [{"fusion": x} for x in FUSIONS], ids=str
)
def test_every_choice_gives_a_loss_a_record(settings):
    out = losses_of(TrainConfig(**settings))
    assert out["loss"].shape == (4,)
    assert ("temperature" in out.batch_state["loss"]) == (settings.get("loss") != "triplet")


@pytest.mark.parametrize("loss", ["triplet", "sigmoid"])
def test_only_a_triplet_has_no_temperature(loss):
    model = nnx.eval_shape(lambda: build(TrainConfig(loss=loss)))
    assert model.has_temperature == (loss != "triplet")


def test_the_choices_differ():
    trees = {
        x: str(nnx.eval_shape(lambda x=x: build(TrainConfig(fusion=x)).fusion)) for x in FUSIONS
    }
    assert len(set(trees.values())) == len(FUSIONS)
