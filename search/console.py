"""What every command shares: errors meant for people, JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

import typer

from search.errors import PanlinguaError


def run(command: typer.Typer) -> None:
    """Run a command line; an error meant for people is one line on stderr and exit status 2."""
    try:
        command()
    except PanlinguaError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except KeyboardInterrupt:
        print("interrupted; what was reported done is kept", file=sys.stderr)
        sys.exit(130)


def say(message: str) -> None:
    """One line to stderr."""
    print(message, file=sys.stderr)


def emit(record: Mapping[str, object]) -> None:
    """One JSON object on one line of stdout."""
    print(json.dumps(record, ensure_ascii=False, default=str), flush=True)
