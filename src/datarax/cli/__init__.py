"""The `datarax` command."""

from datarax.cli.entry import main

__all__ = ["main"]
