import errno

import numpy as np
import pytest

from datarax.train.checkpoints import Checkpoints

PLACE = {"pipeline": {"epoch": 3, "mixture": {"a": 0.5}}}


def test_what_has_no_room_is_not_begun_and_the_step_before_stays(tmp_path):
    small = {"w": np.ones(3, np.float32)}
    huge = {"w": np.broadcast_to(np.float32(0), (2**52,))}  # takes 4 bytes here, 16 PiB on a disk
    with Checkpoints(tmp_path / "kept", create=True) as checkpoints:
        checkpoints.save("last", 1, params=small, optimizer=small, progress={"step": 1}, **PLACE)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(OSError, match=r"No space left on device: .*last") as caught:
            checkpoints.save("last", 2, params=huge, optimizer=small, progress={"step": 2}, **PLACE)
        assert caught.value.errno == errno.ENOSPC
        assert sorted(tmp_path.rglob("*")) == before
        assert checkpoints.step("last") == 1


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"w": np.ones(4, np.float32)}, r"w is \(3,\) there and \(4,\) here"),
        ({"w": np.ones(3, np.float32), "v": np.ones(1)}, r"v is absent there and \(1,\) here"),
        ({"v": np.ones(1)}, r"v is absent there and \(1,\) here"),
    ],
    ids=["shape", "more", "other"],
)
def test_another_models_step_is_refused(tmp_path, wanted, said):
    small = {"w": np.ones(3, np.float32)}
    with Checkpoints(tmp_path / "kept", create=True) as checkpoints:
        checkpoints.save("best", 1, params=small, optimizer=small, progress={"step": 1}, **PLACE)
        with pytest.raises(ValueError, match=rf"best does not fit .*: {said}"):
            checkpoints.restore("best", params=wanted)
        kept = checkpoints.restore("best", params={"w": np.zeros(3, np.float32)})
        assert kept["params"]["w"].tolist() == [1, 1, 1]
        assert {"pipeline": kept["pipeline"]} == PLACE
