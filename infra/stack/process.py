"""A server as a process that outlives the one that started it: start, wait until it answers, stop, kill."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tasks._environment import TELEMETRY_OFF

SECONDS_TO_START = 600.0  # MLflow takes ten seconds of a processor, which may have more to do
SECONDS_TO_STOP = 30.0
LINES_TOLD = 15
# A person's own settings of a client are not those of a server.
FOREIGN = ("AWS_", "DVC_", "MLFLOW_", "PG", "PREFECT_")
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StackError(Exception):
    """A service that cannot be had; the message says what to do."""


class Process(NamedTuple):
    """What the kernel tells of a process: its parent, its session, and when it started in ticks since the machine did, on no clock's word."""

    number: int
    parent: int
    session: int
    started: str


@dataclass(slots=True)
class Service:
    """A server on a port of loopback; its data, its log and the number of its process lie in `folder`, so that any process can stop it."""

    name: str
    folder: Path
    port: int
    command: Sequence[str]
    environment: Mapping[str, str]
    healthy: Callable[[], bool]
    prepare: Callable[[], None] = lambda: None
    ending: signal.Signals = signal.SIGTERM
    secrets: Sequence[str] = ()  # never in what is told of its log
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether any process of it is there."""
        return bool(self._processes())

    def start(self) -> None:
        """Start it on the data that it left, and return when it answers; does nothing when it does already."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start its process, unless that is there."""
        if self.running:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prepare()
        own = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        with (self.folder / "log").open("ab") as log, uninterrupted():
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**own, **TELEMETRY_OFF, **self.environment},
                start_new_session=True,
                umask=0o077,
            )
            (self.folder / "process").write_text(f"{self._child.pid} {processes()[self._child.pid].started}")

    def wait(self, patience: float = SECONDS_TO_START) -> None:
        """Return when it answers; raises StackError with the end of its log when it ends before, or within `patience` seconds does not."""
        end = time.monotonic() + patience
        while not self.healthy():
            ended = self._child is not None and self._child.poll() is not None
            if ended or time.monotonic() > end:
                self.kill()
                why = "it ended" if ended else f"it does not answer within {patience:.0f} s"
                raise StackError(f"{self.name}: {why}. The end of {self.folder / 'log'}:\n{self.told()}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Ask it to end, and return when none of its processes is left; what does not end in time is killed."""
        found = self._processes()
        if found:
            with suppress(ProcessLookupError):
                os.killpg(self._recorded()[0], self.ending)
            self._gone(found, SECONDS_TO_STOP)
        self.kill()

    def kill(self) -> None:
        """End all of its processes as a power cut would, and return when they are gone."""
        found = self._processes()
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process.number, signal.SIGKILL)
        if not self._gone(found, SECONDS_TO_STOP):
            raise StackError(f"{self.name}: the processes {[process.number for process in found]} cannot be killed.")

    def told(self) -> str:
        """The last lines of its log, without secrets."""
        text = "\n".join((self.folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()[-LINES_TOLD:])
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def _gone(self, found: Sequence[Process], patience: float) -> bool:
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if self._child is not None:
                self._child.poll()
            there = processes()
            if not any(process.number in there and there[process.number].started == process.started for process in found):
                return True
            time.sleep(0.05)
        return False

    def _recorded(self) -> tuple[int, str]:
        number, started = (self.folder / "process").read_text().split()
        return int(number), started

    def _processes(self) -> list[Process]:
        """Its first process, what that has started, and the rest of its session where the first is gone."""
        if not (self.folder / "process").is_file():
            return []
        number, started = self._recorded()
        there = processes()
        if number in there and there[number].started != started:
            return []  # the number went to somebody else
        found = {process.number for process in there.values() if process.session == number}
        while more := {process.number for process in there.values() if process.parent in found} - found:
            found |= more
        return [there[each] for each in sorted(found)]


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let what would end this process wait until the block has ended, so that no process is started without being known."""
    if threading.current_thread() is not threading.main_thread():  # the only one that a signal interrupts
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for each in came:
            signal.raise_signal(each)


def processes() -> dict[int, Process]:
    """All processes of the machine but those that have ended and wait to be asked how (Linux)."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                state, parent, _, session, *rest = (entry / "stat").read_text().rpartition(")")[2].split()
                if state not in "ZX":
                    found[int(entry.name)] = Process(int(entry.name), int(parent), int(session), rest[15])
    return found
