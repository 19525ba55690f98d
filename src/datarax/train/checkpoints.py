"""What a run keeps to go on from: the last state, and the best model on validation."""

import errno
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from datarax.train.config import CONFIG_FILE

_SLACK = 1 << 18  # bytes, for what describes the arrays


class Checkpoints:
    """Two Orbax managers under one directory, `last` and `best`, one step in each.

    A step holds `params`, `optimizer`, and as JSON the `progress` of the run and the state of the
    `pipeline`; it appears whole or not at all. Use it as a context manager.

    Args:
      path: the directory; made if `create`.
      create: whether it may be made.

    Raises:
      FileNotFoundError: if it does not exist and `create` is False.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        if not create and not path.is_dir():
            raise FileNotFoundError(f"{path} does not exist: the run has no checkpoint yet")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, create=create, enable_async_checkpointing=False
        )
        self._managers = {
            kind: ocp.CheckpointManager(
                (path / kind).absolute(),
                options=options,
                item_handlers={
                    "params": ocp.StandardCheckpointHandler(),
                    "optimizer": ocp.StandardCheckpointHandler(),
                    "progress": ocp.JsonCheckpointHandler(),
                    "pipeline": ocp.JsonCheckpointHandler(),
                },
            )
            for kind in ("last", "best")
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for manager in self._managers.values():
            manager.close()

    def step(self, kind: str) -> int | None:
        """The step that is kept as `last` or `best`; `None` if there is none."""
        return self._managers[kind].latest_step()

    def save(
        self,
        kind: str,
        step: int,
        *,
        params: Any,
        optimizer: Any,
        progress: dict[str, Any],
        pipeline: dict[str, Any],
    ) -> None:
        """Keep a step in the place of the one before; one that is kept already is left alone.

        Raises:
          OSError: if there is no room for it; the one before is kept then.
        """
        if self.step(kind) == step:
            return
        manager = self._managers[kind]
        _check_room(Path(manager.directory), (params, optimizer))
        args = ocp.args.Composite(
            params=ocp.args.StandardSave(_named(params)),
            optimizer=ocp.args.StandardSave(_named(optimizer)),
            progress=ocp.args.JsonSave(progress),
            pipeline=ocp.args.JsonSave(pipeline),
        )
        try:
            manager.save(step, args=args)
        except ValueError as error:  # TensorStore's word for what the system refused
            if found := re.search(r"\[os_error_code='(\d+)'\]", str(error)):
                number = int(found[1])
                raise OSError(number, os.strerror(number), str(manager.directory)) from error
            raise

    def restore(self, kind: str, *, params: Any, optimizer: Any = None) -> dict[str, Any]:
        """The step that is kept: `progress`, `pipeline`, and trees like the given ones.

        Raises:
          FileNotFoundError: if there is none.
          ValueError: if what is kept has other leaves or shapes.
        """
        step = self.step(kind)
        if step is None:
            directory = self._managers[kind].directory
            raise FileNotFoundError(f"{directory} holds no checkpoint: train the run first")
        trees = {"params": params} | ({} if optimizer is None else {"optimizer": optimizer})
        kept = self._managers[kind].item_metadata(step)
        for name, tree in trees.items():
            _check_fit(kept[name], _named(tree), self._managers[kind].directory)
        like = {name: ocp.args.StandardRestore(_named(tree)) for name, tree in trees.items()}
        restored = self._managers[kind].restore(
            step,
            args=ocp.args.Composite(
                progress=ocp.args.JsonRestore(), pipeline=ocp.args.JsonRestore(), **like
            ),
        )
        leaves = {
            name: jax.tree.unflatten(jax.tree.structure(tree), _ordered(restored[name], tree))
            for name, tree in trees.items()
        }
        return {"progress": restored["progress"], "pipeline": restored["pipeline"], **leaves}


def _check_fit(kept: Mapping[str, Any], wanted: Mapping[str, Any], directory: Any) -> None:
    there, here = ({name: tuple(x.shape) for name, x in tree.items()} for tree in (kept, wanted))
    wrong = [name for name in sorted(there | here) if there.get(name) != here.get(name)]
    if wrong:
        first = wrong[0]
        raise ValueError(
            f"{directory} does not fit the run's configuration: {first} is "
            f"{there.get(first, 'absent')} there and {here.get(first, 'absent')} here; was "
            f"{CONFIG_FILE} edited, or the run made by another version?"
        )


def _check_room(directory: Path, tree: Any) -> None:
    # Beforehand, since Orbax logs a failed write from many threads and leaves a part of it.
    needed = 1.1 * sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + _SLACK
    if shutil.disk_usage(directory).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))


def _named(tree: Any) -> dict[str, Any]:
    """The leaves by their paths: what Orbax stores is then the same for any container."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _ordered(named: dict[str, Any], tree: Any) -> list[jax.Array]:
    # What Orbax restores is committed to a device, for which `jit` would compile anew.
    return [jnp.asarray(np.asarray(named[name])) for name in _named(tree)]
