"""A release, a promotion, a second one, a rollback and the history, each by the command that a person would type, on a copy of the project."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from infra.stack.process import StackError, uninterrupted
from infra.stack.services import stack

ROOT = Path(__file__).parents[2]
SECONDS_TO_STOP = 60.0  # a training may be saving
EDIT: tuple[str, ...] = ()
AUTHOR = ("-c", "user.name=stack", "-c", "user.email=stack@localhost")


def clear(folder: Path) -> None:
    """Remove what an earlier demonstration left, with its processes."""
    if folder.is_dir():
        stack(folder).stop()
        shutil.rmtree(folder)


def show(experiment: str, project: Path, environment: Mapping[str, str]) -> None:
    """Run the commands in a copy of the project, so that nobody's results are in the way of a second version."""
    copy_project(project)
    for title, command in steps(experiment):
        print(f"\n== {title}", flush=True)
        if command == EDIT:
            change(project / "experiments" / f"{experiment}.yaml")
            commit(project, "one step more")
        else:
            print(f"$ {shlex.join(command)}", flush=True)
            call(command, project, environment)


def steps(experiment: str) -> list[tuple[str, tuple[str, ...]]]:
    """What is shown: a title and a command, or the edit that a second version comes from."""
    release = ("python", "-m", "flows.release", "--experiment", experiment)
    push = ("python", "-m", "dvc", "push", "--quiet", f"experiments/{experiment}/dvc.yaml")
    of, by = ("--name", f"iad-r1-{experiment}", "--params", f"experiments/{experiment}/params.yaml"), ("--who", "make stack")

    def registry(*words: str) -> tuple[str, ...]:
        return ("python", "-m", "iadr1", "registry", *words, *of)

    return [
        ("a release", release),
        ("its data and models to the bucket", push),
        ("its version to production", registry("promote", "staging", "--to", "production", *by, "--why", "the first")),
        ("PA-SFT takes one epoch more", EDIT),
        ("a second release", release),
        ("its data and models to the bucket", push),
        ("its version to production", registry("promote", "staging", "--to", "production", *by, "--why", "trained longer")),
        ("back to the first", registry("rollback", *by, "--why", "to show it")),
        ("what happened", registry("history")),
        ("what is where", registry("list")),
    ]


def copy_project(into: Path) -> None:
    """The project's files as they are now, as a repository with one commit."""
    listed = subprocess.run(
        ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"), cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, into / name)
    subprocess.run(("git", "init", "--quiet"), cwd=into, check=True)
    commit(into, "as it was copied")


def commit(project: Path, message: str) -> None:
    """Commit all that has changed."""
    for command in (("add", "--all"), (*AUTHOR, "commit", "--quiet", "--message", message)):
        subprocess.run(("git", *command), cwd=project, check=True)


def change(experiment: Path) -> None:
    """Let PA-SFT take one epoch more."""
    keys = yaml.safe_load(experiment.read_text(encoding="utf-8"))
    keys["pa_sft"]["num_train_epochs"] += 1
    experiment.write_text(yaml.safe_dump(keys, sort_keys=False), encoding="utf-8")


def call(command: Sequence[str], project: Path, environment: Mapping[str, str]) -> None:
    """Run a command to its end, or end it with all that it started; raises StackError when it fails."""
    words = (sys.executable, *command[1:])
    # PYTHONPATH: the copy's own modules, not those of the project that is installed.
    own = {
        **os.environ,
        **environment,
        "PYTHONPATH": str(project),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with uninterrupted():
        process = subprocess.Popen(words, cwd=project, env=own, start_new_session=True)
    try:
        process.wait()
    finally:
        _end(process)
    if process.returncode != 0:
        raise StackError(f"`{shlex.join(command)}` ended with exit code {process.returncode}; the reason stands above.")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(SECONDS_TO_STOP)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
