"""Presence of one record's fields, as `apply` finds and reports it in its metadata."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array


def row_presence(metadata: dict[str, Any] | None, fields: Sequence[str]) -> list[Array]:
    """Bool scalars: which fields this record has. Without metadata, by hand, it has them all."""
    known = (metadata or {}).get("presence") or {}
    return [jnp.asarray(known.get(field, True), bool) for field in fields]


def with_presence(
    metadata: dict[str, Any] | None, fields: Sequence[str], presence: Sequence[Array]
) -> dict[str, Any] | None:
    """The metadata that reports the presence of fields that `apply` wrote.

    Outside a batch, where the metadata speaks of no presence, it comes back as it is.
    """
    if metadata is None or "presence" not in metadata:
        return metadata
    entries = dict(zip(fields, presence, strict=True))
    return {**metadata, "presence": {**metadata["presence"], **entries}}
