"""From an argument list to an exit code: 0, 1 (our bug), 2 (the user's error) or 130 (Ctrl-C)."""

import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence

import typer

from datarax.cli.commands import app
from datarax.cli.errors import bug_message, user_message


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `datarax`; an error becomes one line on stderr, and with `--debug` a traceback too."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names and glyphs that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="datarax: %(message)s")  # bad records, as they are met
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs tracebacks of what it raises
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    try:
        code = typer.main.get_command(app).main(
            arguments, prog_name="datarax", standalone_mode=False
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        print("datarax: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if "--debug" in options:
            traceback.print_exc()
        message = user_message(error)
        print(f"datarax: {message or bug_message(error)}", file=sys.stderr)
        return 1 if message is None else 2
