"""Ways in which a server goes away and comes back: it is killed, it hangs, the connection to it is cut."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parents[2]
_STARTS_S = 60.0


class Breakable(Protocol):
    """A server that can go away."""

    @property
    def url(self) -> str:
        """Where it answers, also after it was away."""

    def cut(self) -> None:
        """It is gone."""

    def mend(self) -> None:
        """It answers again."""


class Killed:
    """The stand-in for a server in a process of its own, with its points in a folder; cut off by SIGKILL."""

    def __init__(self, folder: Path) -> None:
        self.port, self.process = free_port(), 0
        command = [sys.executable, "-m", "tests.integration.qdrant_standin", str(folder), str(self.port)]
        self._starter = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.url = f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """See Breakable."""
        with suppress(ProcessLookupError):
            while self.process:
                os.kill(self.process, signal.SIGKILL)
                time.sleep(0.001)
        self.process = 0

    def mend(self) -> None:
        """See Breakable."""
        assert self._starter.stdin is not None
        assert self._starter.stdout is not None
        self._starter.stdin.write("\n")
        self.process = int(self._starter.stdout.readline())
        end = time.monotonic() + _STARTS_S
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.01)
        raise TimeoutError("the stand-in did not start")

    def close(self) -> None:
        """End it and what starts it."""
        self.cut()
        with self._starter:
            assert self._starter.stdin is not None
            self._starter.stdin.close()


class Hanging:
    """A server that takes calls and does not answer them for a while."""

    def __init__(self, server: Killed) -> None:
        self._server, self.url = server, server.url

    def cut(self) -> None:
        """See Breakable."""
        os.kill(self._server.process, signal.SIGSTOP)

    def mend(self) -> None:
        """See Breakable."""
        os.kill(self._server.process, signal.SIGCONT)


class Wire:
    """A connection to a port of this machine, through one of its own, that is cut while the server lives."""

    def __init__(self, port: int) -> None:
        self._port, self._target, self._ends = free_port(), port, list[socket.socket]()
        self.url = f"http://127.0.0.1:{self._port}"
        self.mend()

    def cut(self) -> None:
        """See Breakable."""
        for end in [self._listener, *self._ends]:
            _shut(end)
        self._listener.close()
        self._ends.clear()

    def mend(self) -> None:
        """See Breakable."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_carry, args=(one, other), daemon=True).start()


@contextmanager
def running(folder: Path) -> Iterator[Killed]:
    """The stand-in, started."""
    server = Killed(folder)
    try:
        server.mend()
        yield server
    finally:
        server.close()


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _carry(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
    _shut(one)
    _shut(other)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
