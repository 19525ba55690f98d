"""`overwrite` costs no old run where the new one cannot be."""

import pytest

from datarax.train import TrainConfig, train
from datarax.train.run_directory import METRICS_FILE, prepare


@pytest.fixture
def old_run(tmp_path):
    out = tmp_path / "run"
    prepare(out, TrainConfig(seed=7), resume=False, overwrite=False)
    (out / METRICS_FILE).write_text("{}\n")
    return out


def test_a_configuration_that_cannot_be_deletes_nothing(old_run):
    before = {path.name: path.read_bytes() for path in old_run.iterdir()}
    with pytest.raises(ValueError, match="batch_size 256 is too large"):
        train(TrainConfig(limit=10), old_run, overwrite=True)
    assert {path.name: path.read_bytes() for path in old_run.iterdir()} == before


def test_nor_does_it_leave_a_directory(tmp_path):
    with pytest.raises(ValueError, match="too large"):
        train(TrainConfig(limit=10), tmp_path / "new")
    assert not (tmp_path / "new").exists()
