"""Train on a data set, evaluate, and load what was trained."""

from datarax.train.config import TrainConfig
from datarax.train.loop import train
from datarax.train.run import Run, evaluate, load_run

__all__ = ["Run", "TrainConfig", "evaluate", "load_run", "train"]
