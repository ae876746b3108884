"""DVC's command line behind two verbs: what is there to run, and run one stage while a person sees its output."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast

from flows import processes

DVC = (sys.executable, "-m", "dvc")

Outcome = Literal["ran", "restored", "unchanged"]

# What DVC says about itself; a person who watches a stage needs none of it.
_CHATTER = re.compile(
    r"(Updating lock file|Generating lock file|Running stage|Stage '.*' didn't change, skipping|> |Use `dvc push`|"
    r"WARNING: Process .* in RWLock-file|To track the changes with git|\s*git add |To enable auto staging|\s*dvc config core\.autostage|"
    r"ERROR: failed to reproduce .*exited with|\s*$)"
)

# By SIGKILL or SIGTERM: DVC tells the signal, or 128 and the signal where $SHELL stays beside the stage instead of becoming it.
# A training that was asked to stop ends by 143 too, but says so.
_KILLED = re.compile(r"exited with (-9|-15|137|143)$")


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


def run_stage(
    pipeline: Path,
    stage: str,
    *,
    log: Callable[[str], None],
    terminal: IO[bytes],
    force: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Run one stage through DVC; its output goes to the terminal as it is and to `log` line by line. `force`: also when nothing that DVC watches changed."""
    forced = ("--force",) if force else ()
    command = (*DVC, "--wait-for-lock", "repro", "--single-item", *forced, f"{pipeline}:{stage}")
    ended = processes.run(command, log=log, terminal=terminal, hidden=_CHATTER, environment=environment)
    if ended.code != 0:
        raise _failure(stage, ended.lines)
    return _outcome(ended.lines)


def _outcome(lines: Iterable[str]) -> Outcome:
    said = "\n".join(lines)
    if "didn't change, skipping" in said:
        return "unchanged"
    return "restored" if "is cached - skipping run" in said else "ran"


def _failure(stage: str, lines: Sequence[str]) -> StageFailed:
    told = [line for line in lines if not _CHATTER.match(line)]
    if any(_KILLED.search(line) for line in lines) and not any("(SIGTERM)" in line for line in told):
        return StageFailed(stage, f"{stage} was killed; run again to go on where it stopped", explained=False)
    # What a stage says before it crashes is not why.
    crashed = max((at for at, line in enumerate(told) if line.startswith("Traceback ")), default=0)
    own = [line for line in told[crashed:] if line.startswith(f"{stage.partition('@')[0]}: ")]
    if own:
        return StageFailed(stage, own[-1], explained=True)
    return StageFailed(stage, told[-1].strip() if told else "ended without a word", explained=False)


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
