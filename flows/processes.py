"""Commands that flows run: a person sees their output as it is, logs get it line by line, and they never outlive the flow."""

import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import get_terminal_size
from typing import IO

LEASH = Path(__file__).with_name("leash.py")
SECONDS_TO_STOP = 20.0
SECONDS_BETWEEN_PROGRESS_LINES = 15.0

_running: set["subprocess.Popen[bytes]"] = set()
_interrupted = threading.Event()


class CommandFailed(Exception):
    """What was asked for cannot be run, or has failed; the message says why, `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command has ended, and the last lines that it printed."""

    code: int
    lines: Sequence[str]


def run(
    command: Sequence[str],
    *,
    log: Callable[[str], None],
    terminal: IO[bytes],
    hidden: re.Pattern[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run a command; its output goes to the terminal as it is, but for lines that are `hidden`, and to `log` line by line."""
    output = Output(log, terminal, hidden)
    with _tree(command, environment or {}) as process:
        assert process.stdout is not None
        while chunk := os.read(process.stdout.fileno(), 65536):
            output.feed(chunk)
        code = process.wait()
    output.end()
    return Ended(code, tuple(output.lines))


@contextmanager
def ended_together() -> Iterator[None]:
    """Within, what other threads run, or are about to, ends with an exception of this one: it would not reach them."""
    _interrupted.clear()
    try:
        yield
    except BaseException:
        _interrupted.set()
        for process in list(_running):
            _let_go(process)
        raise


@dataclass(slots=True)
class Output:
    """Passes what a process prints to a terminal at once, and to a log without the hundreds of states of a progress bar."""

    log: Callable[[str], None]
    terminal: IO[bytes]
    hidden: re.Pattern[str] | None = None
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    _pending: bytes = b""
    _shown: int = 0
    _logged_at: float = field(default_factory=time.monotonic)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        *complete, self._pending = re.split(rb"(?<=\n)", self._pending + chunk)
        for line in complete:
            self._line(line)
        if b"\r" in self._pending:
            self._progress()
        self.terminal.flush()

    def end(self) -> None:
        """Take what is left when there is no line end after it."""
        if self._pending:
            self._line(self._pending + b"\n")
            self._pending = b""
        self.terminal.flush()

    def _line(self, line: bytes) -> None:
        text = _text(line)
        if self._shown or self.hidden is None or not self.hidden.match(text):
            self.terminal.write(line[self._shown :])
        self._shown = 0
        self.lines.append(text)
        if text.strip():
            self.log(text)

    def _progress(self) -> None:
        self.terminal.write(self._pending[self._shown :])
        self._pending = self._pending[self._pending.rindex(b"\r") :]
        self._shown = len(self._pending)
        if time.monotonic() - self._logged_at > SECONDS_BETWEEN_PROGRESS_LINES and _text(self._pending).strip():
            self.log(_text(self._pending))
            self._logged_at = time.monotonic()


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r\n").rpartition("\r")[2].rstrip()


@contextmanager
def _tree(command: Sequence[str], environment: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    # The leash ends the command and all that it started, also when this process is killed: DVC alone would leave a training behind.
    words = [sys.executable, "-I", "-S", str(LEASH), str(SECONDS_TO_STOP), *command]
    told = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": str(get_terminal_size().columns), **environment}
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=told, start_new_session=True
    ) as process:
        _running.add(process)
        if _interrupted.is_set() and threading.current_thread() is not threading.main_thread():
            _let_go(process)
        try:
            yield process
        finally:
            _running.discard(process)
            _let_go(process)
            # Until the last descendant has closed its output: a trainer may be saving.
            process.stdout.read()  # type: ignore[union-attr]


def _let_go(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    process.stdin.close()
