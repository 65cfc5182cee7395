"""What every command shares: errors meant for people, JSON lines."""

from __future__ import annotations

import errno
import io
import json
import shutil
import sys
from collections.abc import Mapping

import typer

from search.errors import PanlinguaError

INTERRUPTED = 130
"""Exit status that typer makes of Ctrl-C."""


def run(command: typer.Typer) -> None:
    """Run a command line; an error meant for people is one line on stderr and exit status 2.

    Such are also what the operating system says of a file: that it cannot be written, that the disk is full.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that is not UTF-8 gets escapes, not a traceback
            stream.reconfigure(errors="backslashreplace")
    try:
        command()
    except PanlinguaError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"error: {_of_file(error)}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            print("interrupted; what was finished before is kept", file=sys.stderr)
        raise


def _of_file(error: OSError) -> str:
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):  # of several files
        source, target, reason = error.args[0][0]
        return f"{source} cannot be copied to {target}: {reason}"
    hint = "; free some space, and run the command again" if error.errno == errno.ENOSPC else ""
    return f"{error.filename}: {error.strerror}{hint}" if error.filename and error.strerror else f"{error}{hint}"


def say(message: str) -> None:
    """One line to stderr."""
    print(message, file=sys.stderr)


def emit(record: Mapping[str, object]) -> None:
    """One JSON object on one line of stdout."""
    print(json.dumps(record, ensure_ascii=False, default=str), flush=True)
