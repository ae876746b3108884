"""DVC's command line behind two verbs: what is there to run, and run one stage while a person sees its output."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from shutil import get_terminal_size
from typing import IO, Literal, NamedTuple, cast

DVC = (sys.executable, "-m", "dvc")
SECONDS_TO_STOP = 20.0
SECONDS_BETWEEN_PROGRESS_LINES = 15.0

Outcome = Literal["ran", "restored", "unchanged"]

# What DVC says about itself; a person who watches a stage needs none of it.
_CHATTER = re.compile(
    r"(Updating lock file|Generating lock file|Running stage|Stage '.*' didn't change, skipping|> |Use `dvc push`|"
    r"WARNING: Process .* in RWLock-file|To track the changes with git|\s*git add |To enable auto staging|\s*dvc config core\.autostage|\s*$)"
)
_OWN_ERROR = re.compile(r"ERROR: failed to reproduce .*exited with|\s*$")


class DvcError(Exception):
    """DVC could not read the project; the message is its own."""


class StageFailed(Exception):
    """A stage that ended with an error; `explained` when it said itself what a person has to mend."""

    def __init__(self, stage: str, line: str, *, explained: bool) -> None:
        super().__init__(line)
        self.stage = stage
        self.explained = explained


class Address(NamedTuple):
    """A stage of a pipeline."""

    pipeline: str
    stage: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages of a pipeline in an order in which they can run, what each one waits for, and which have changed."""

    pipeline: Path
    upstream: Mapping[str, frozenset[str]]
    changed: frozenset[str]

    def must_run(self, stage: str, ran: frozenset[str]) -> bool:
        """Whether the stage, or one that it waits for, is not as it was."""
        return stage in self.changed or bool(self.upstream[stage] & ran)

    @property
    def due(self) -> list[str]:
        """The stages that have changed, and all that build on them."""
        found: list[str] = []
        for stage in self.upstream:
            if self.must_run(stage, frozenset(found)):
                found.append(stage)
        return found


def plan(pipeline: Path) -> Plan:
    """Ask DVC once what there is and what has changed."""
    return plans([pipeline])[0]


def plans(pipelines: Sequence[Path]) -> list[Plan]:
    """Ask DVC once about several pipelines; a stage that builds on a changed one of another pipeline counts as changed."""
    only = [str(pipelines[0])] if len(pipelines) == 1 else []
    dag, status = _started("dag", "--dot", *only), _started("status", "--json", *map(str, pipelines))
    upstream = _upstream(_answer(dag))
    changed = {_address(name) for name in json.loads(_answer(status))}
    reached = set(changed)
    order = list(TopologicalSorter(upstream).static_order())
    for address in order:
        if upstream[address] & reached:
            reached.add(address)
    builds_on_others = {
        address for address in reached if any(before.pipeline != address.pipeline for before in upstream[address] & reached)
    }
    return [_plan(str(pipeline), order, upstream, changed | builds_on_others) for pipeline in pipelines]


def _plan(pipeline: str, order: Iterable[Address], upstream: Mapping[Address, set[Address]], changed: set[Address]) -> Plan:
    own = [address for address in order if address.pipeline == pipeline]
    stages = {address.stage: frozenset(before.stage for before in upstream[address] if before.pipeline == pipeline) for address in own}
    return Plan(Path(pipeline), stages, frozenset(address.stage for address in own if address in changed))


def run_stage(pipeline: Path, stage: str, *, log: Callable[[str], None], terminal: IO[bytes]) -> Outcome:
    """Run one stage through DVC; its output goes to the terminal as it is and to `log` line by line."""
    output = Output(log, terminal)
    with _tree(*DVC, "--wait-for-lock", "repro", "--single-item", f"{pipeline}:{stage}") as process:
        assert process.stdout is not None
        while chunk := os.read(process.stdout.fileno(), 65536):
            output.feed(chunk)
        code = process.wait()
    output.end()
    if code != 0:
        raise _failure(stage, output.lines)
    return _outcome(output.lines)


@dataclass(slots=True)
class Output:
    """Passes what a process prints to a terminal at once, and to a log without the hundreds of states of a progress bar."""

    log: Callable[[str], None]
    terminal: IO[bytes]
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
        if self._shown or not (_CHATTER.match(text) or _OWN_ERROR.match(text)):
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
def _tree(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    # A session of its own, so that one signal reaches DVC, the stage and all that it started: DVC alone would leave a training behind.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": str(get_terminal_size().columns)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, start_new_session=True) as process:
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        _signal_all(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            # Until the last descendant has closed its output, not only until DVC is gone: a trainer may be saving.
            process.communicate(timeout=SECONDS_TO_STOP)
    _signal_all(process.pid, signal.SIGKILL)


def _signal_all(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _outcome(lines: Iterable[str]) -> Outcome:
    said = "\n".join(lines)
    if "didn't change, skipping" in said:
        return "unchanged"
    return "restored" if "is cached - skipping run" in said else "ran"


def _failure(stage: str, lines: Iterable[str]) -> StageFailed:
    told = [line for line in lines if not _CHATTER.match(line) and not _OWN_ERROR.match(line)]
    own = [line for line in told if line.startswith(f"{stage.partition('@')[0]}: ")]
    if own:
        return StageFailed(stage, own[-1], explained=True)
    killed = any(re.search(r"exited with -(9|15)$", line) for line in lines)
    ended = f"{stage} was killed; run again to go on where it stopped" if killed else (told[-1].strip() if told else "ended without a word")
    return StageFailed(stage, ended, explained=False)


def _started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen((*DVC, "--wait-for-lock", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _answer(process: subprocess.Popen[str]) -> str:
    answer, errors = process.communicate()
    if process.returncode != 0:
        command = " ".join(cast("tuple[str, ...]", process.args))
        raise DvcError(errors.strip() or f"`{command}` ended with exit code {process.returncode}")
    return answer


def _upstream(dot: str) -> dict[Address, set[Address]]:
    upstream: dict[Address, set[Address]] = {}
    for line in dot.splitlines():
        names = [_address(name) for name in re.findall(r'"([^"]+)"', line)]
        for name in names:
            upstream.setdefault(name, set())
        if len(names) == 2:
            upstream[names[1]].add(names[0])
    return upstream


def _address(text: str) -> Address:
    """DVC names a stage `folder/dvc.yaml:stage`, and one of the dvc.yaml in the working folder by the stage alone."""
    pipeline, _, stage = text.rpartition(":")
    return Address(pipeline or "dvc.yaml", stage)
