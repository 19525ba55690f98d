import errno

import numpy as np
import pytest

from datarax.train.checkpoints import Checkpoints


def test_what_has_no_room_is_not_begun_and_the_step_before_stays(tmp_path):
    small = {"w": np.ones(3, np.float32)}
    huge = {"w": np.broadcast_to(np.float32(0), (2**52,))}  # takes 4 bytes here, 16 PiB on a disk
    with Checkpoints(tmp_path / "kept", create=True) as checkpoints:
        checkpoints.save("last", 1, params=small, optimizer=small, progress={"step": 1})
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(OSError, match=r"No space left on device: .*last") as caught:
            checkpoints.save("last", 2, params=huge, optimizer=small, progress={"step": 2})
        assert caught.value.errno == errno.ENOSPC
        assert sorted(tmp_path.rglob("*")) == before
        assert checkpoints.step("last") == 1
