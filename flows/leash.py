"""Runs a command that ends, with all that it started, when its starter does: python leash.py SECONDS COMMAND...

Standard input is a pipe whose other end the starter holds and never writes to. When it closes, also by a kill -9 of the starter, all get SIGTERM,
and after so many seconds SIGKILL. It is a file and not a module so that it starts in the blink of an eye: `python -I -S`.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable

PR_SET_CHILD_SUBREAPER = 36
SECONDS_BETWEEN_KILLS = 0.2


def main(seconds: float, command: list[str]) -> int:
    """Run the command, and answer with its exit code once it has ended; when it was ended, once its last descendant has."""
    if sys.platform == "linux":
        # Descendants whose parents have ended become children of this process: only so does it know when the last one has gone.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = started(command)
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=end, args=(child, seconds, ending), daemon=True).start())
    threading.Thread(target=end_when_closed, args=(child, seconds, ending), daemon=True).start()
    code = 0
    while True:
        try:
            ended, status = os.wait()
        except ChildProcessError:
            return code
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            if not ending.is_set():
                signal_all([-child], signal.SIGKILL)
                return code


def started(command: list[str]) -> int:
    """The id of the command's process, once it leads a session of its own: before, a signal to that would reach nobody."""
    runs, closed_by_exec = os.pipe()
    child = os.fork()
    if child:
        os.close(closed_by_exec)
        os.read(runs, 1)
        return child
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execvp(command[0], command)
    finally:
        os._exit(127)


def end_when_closed(child: int, seconds: float, ending: threading.Event) -> None:
    """Wait until the starter lets go, and end the command."""
    with contextlib.suppress(OSError):
        os.read(0, 1)
    end(child, seconds, ending)


def end(child: int, seconds: float, ending: threading.Event) -> None:
    """End the command's session, and after a while by force what is left of it, and what has left it."""
    ending.set()
    signal_all([-child], signal.SIGTERM)
    time.sleep(seconds)
    while True:
        signal_all([-child, *children()], signal.SIGKILL)
        time.sleep(SECONDS_BETWEEN_KILLS)


def children() -> list[int]:
    """The processes below this one; empty where the system does not tell."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:  # noqa: PTH123 - pathlib takes longer than all of this
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def signal_all(processes: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to processes, or to groups where the number is negative; who is gone is gone."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)


if __name__ == "__main__":
    result = main(float(sys.argv[1]), sys.argv[2:])
    sys.exit(128 - result if result < 0 else result)
