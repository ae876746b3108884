"""A person's commands in a project, their ends, and SIGKILL for what they have started."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from infra.stack.process import processes

PATIENCE = 1800.0  # seconds; a machine may be busy
BUSY = 75  # the exit code of a release beside which another one runs
SECONDS_TO_GO = 120.0  # for what a killed flow has started: a trainer may be saving


class Failed(Exception):
    """A drill whose claim does not hold; the message says why."""


class Ended(NamedTuple):
    """How a command has ended, and what it said."""

    code: int
    text: str

    @property
    def said(self) -> str:
        """What a person reads last: what follows "failed: STAGE", else the last line."""
        lines = [line.strip() for line in self.text.replace("\r", "\n").splitlines() if line.strip()]
        told = [number for number, line in enumerate(lines) if line.startswith("failed: ")]
        return " ".join(lines[told[-1] + 1 :]) if told and told[-1] + 1 < len(lines) else (lines[-1] if lines else "nothing")


class Command:
    """A command that runs, with what it prints in a file."""

    def __init__(self, words: Sequence[str], *, project: Path, environment: Mapping[str, str], log: Path) -> None:
        self.words, self.log, self._start = words, log, log.stat().st_size if log.is_file() else 0
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                words,
                cwd=project,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def ended(self) -> Ended:
        """Wait for its end."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"`{' '.join(self.words)}` does not end within {PATIENCE:.0f} s; see {self.log}") from error
        with self.log.open("rb") as file:
            file.seek(self._start)
            return Ended(code, file.read().decode(errors="replace"))

    def until(self, comes_true: Callable[[], bool], what: str) -> None:
        """Wait until something is so while the command runs; raises Failed when the command ends before."""
        end = time.monotonic() + PATIENCE
        while not comes_true():
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failed(f"the command ended before {what}: {self.ended().said}")
            time.sleep(0.005)


def below(project: Path) -> Iterator[tuple[int, str]]:
    """Number and command line of the processes that work in a project."""
    for number in processes():
        with suppress(OSError):
            if Path(f"/proc/{number}/cwd").readlink().is_relative_to(project):
                yield number, Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def kill(project: Path, module: str) -> None:
    """SIGKILL to the processes that `python -m MODULE` has in a project."""
    found = [number for number, line in below(project) if re.match(rf"\S*python\S* -m {re.escape(module)} ", line)]
    if not found:
        raise Failed(f"no process of {module} is there to be killed")
    for number in found:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def kill_all(project: Path) -> None:
    """SIGKILL to everything that works in a project."""
    while found := list(below(project)):
        for number, _line in found:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.02)


def left_behind(project: Path) -> list[str]:
    """What still works in a project when nobody has anything running there, after the time that an orderly end may take."""
    end = time.monotonic() + SECONDS_TO_GO
    while (found := [line for _number, line in below(project)]) and time.monotonic() < end:
        time.sleep(0.1)
    return found
