"""Parsers of binary formats in a process of their own, so that one bad file cannot take the ingest with it.

The child is started with the first file, kept for the next ones, and replaced after a crash or a timeout. It is an
ordinary program (`python -m indexer.isolation`) that speaks JSON lines, so that the caller's main module is never
imported a second time and nothing that a parser was tricked into is unpickled here.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from indexer.documents import Heading
from indexer.extract import Extracted, extract
from search.errors import SourceError, TransientSourceError

MEMORY_LIMIT_BYTES = 4 * 1024**3
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class ParserProcess:
    """A child process that extracts one file at a time."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def extract(self, path: Path, *, name: str, max_bytes: int, timeout_s: float) -> Extracted:
        """As `indexer.extract.extract`, in the child.

        Raises:
            SourceError: The file cannot be read, took too long, or crashed the parser.
        """
        request = {"path": os.fsencode(path.absolute()).hex(), "name": name, "max_bytes": max_bytes}
        with self._lock:
            try:
                answer = self._ask({**request, "timeout_s": timeout_s}, timeout_s)
            except BaseException:
                self._stop()
                raise
        if "reason" in answer:
            raise SourceError(answer["reason"])
        headings = tuple(Heading(**heading) for heading in answer["headings"])
        metadata = {name: tuple(v) if isinstance(v, list) else v for name, v in answer["metadata"].items()}
        return Extracted(**{**answer, "headings": headings, "metadata": metadata})

    def close(self) -> None:
        """End the child, if there is one."""
        with self._lock:
            self._stop()

    def _ask(self, request: dict[str, object], timeout_s: float) -> dict[str, Any]:
        child = self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            child.kill()

        watch = threading.Timer(timeout_s, expire)
        watch.daemon = True
        watch.start()
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            watch.cancel()
        if not line.endswith(b"\n"):
            reason = f"took longer than {timeout_s:g} s" if expired.is_set() else "the parser crashed"
            raise TransientSourceError(reason)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        if self._child and self._child.poll() is None:
            return self._child
        self._stop()
        search_path = os.pathsep.join(str(Path(entry or ".").absolute()) for entry in sys.path)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "indexer.isolation"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": search_path},
        )
        return self._child

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child:
            child.kill()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):
                    if pipe:
                        pipe.close()
            child.wait()


parsers = ParserProcess()
atexit.register(parsers.close)


def serve() -> None:
    """The child: answer requests on stdin until it closes. What a library prints goes to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if hasattr(signal, "alarm"):  # should the parent be gone, a hanging parser must not live on
            signal.alarm(int(request["timeout_s"]) + 5)
        path = Path(os.fsdecode(bytes.fromhex(request["path"])))
        try:
            answer = asdict(extract(path, name=request["name"], max_bytes=request["max_bytes"]))
        except SourceError as error:
            answer = {"reason": str(error)}
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        replies.write(json.dumps(answer).encode() + b"\n")
        replies.flush()


def _limit() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        import resource

        for limit, most in ((resource.RLIMIT_AS, MEMORY_LIMIT_BYTES), (resource.RLIMIT_CORE, 0)):
            with contextlib.suppress(ValueError, OSError):  # a lower limit is set already, or the system has none
                resource.setrlimit(limit, (most, most))


if __name__ == "__main__":
    serve()
