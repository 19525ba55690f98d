"""What a run keeps to go on from: the last state, and the best model on validation."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp


class Checkpoints:
    """Two Orbax managers under one directory, `last` and `best`, one step in each.

    A step holds `params`, `optimizer`, and the loader's state as JSON; it appears whole or not at
    all. Use it as a context manager.

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
            kind: ocp.CheckpointManager((path / kind).absolute(), options=options)
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
        self, kind: str, step: int, *, params: Any, optimizer: Any, progress: dict[str, Any]
    ) -> None:
        """Keep a step in the place of the one before; one that is kept already is left alone."""
        if self.step(kind) == step:
            return
        self._managers[kind].save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(_named(params)),
                optimizer=ocp.args.StandardSave(_named(optimizer)),
                progress=ocp.args.JsonSave(progress),
            ),
        )

    def restore(self, kind: str, *, params: Any, optimizer: Any = None) -> dict[str, Any]:
        """The step that is kept: `progress`, and `params` and `optimizer` like the given ones.

        Raises:
          FileNotFoundError: if there is none.
        """
        step = self.step(kind)
        if step is None:
            directory = self._managers[kind].directory
            raise FileNotFoundError(f"{directory} holds no checkpoint: train the run first")
        trees = {"params": params} | ({} if optimizer is None else {"optimizer": optimizer})
        like = {name: ocp.args.StandardRestore(_named(tree)) for name, tree in trees.items()}
        restored = self._managers[kind].restore(
            step, args=ocp.args.Composite(progress=ocp.args.JsonRestore(), **like)
        )
        leaves = {
            name: jax.tree.unflatten(jax.tree.structure(tree), _ordered(restored[name], tree))
            for name, tree in trees.items()
        }
        return {"progress": restored["progress"], **leaves}


def _named(tree: Any) -> dict[str, Any]:
    """The leaves by their paths: what Orbax stores is then the same for any container."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _ordered(named: dict[str, Any], tree: Any) -> list[Any]:
    return [named[name] for name in _named(tree)]
