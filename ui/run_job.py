"""Run one job outside the web process: `python -m ui.run_job FOLDER COMMAND...`.

The folder's lock is held for as long as the job runs, so that whoever looks knows, also after the web process was
started again; how it ended is written to `ended`.
"""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

LOCK, OUTPUT, ERRORS, ENDED = "lock", "output.jsonl", "errors.txt", "ended"


def main() -> None:
    """Run the command in its own process, pass a request to stop on to it, and write down its exit status."""
    folder, command = Path(sys.argv[1]), sys.argv[2:]
    with (
        (folder / LOCK).open("w", encoding="ascii") as lock,
        (folder / OUTPUT).open("wb") as output,
        (folder / ERRORS).open("wb") as errors,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Where the application was started in the background, interrupts are ignored, and jobs would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)

        def stop(_signal: int, _frame: FrameType | None) -> None:
            process.send_signal(signal.SIGINT)

        signal.signal(signal.SIGTERM, stop)
        status = process.wait()
        (folder / ENDED).write_text(str(status), encoding="ascii")


if __name__ == "__main__":
    main()
