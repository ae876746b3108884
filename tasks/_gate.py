"""The gate of a change, the same here and in CI: python -m tasks._gate --base main (make gate BASE=main)

Brings the evaluations of the working tree up to date, taking from DVC's remote what is there, and has `iadr1 gate` decide against the live
model (--live models:/NAME@production, or an evaluation) or against the evaluations of another commit (--base). Nothing is registered, and
what a change runs never learns where the registry is. Exit code 0 passed, 3 refused, 1 could not decide.

With --locked nothing is trained or asked: dvc.lock has to be committed and up to date, and the evaluations come from the remote. That is for a
machine without the GPUs that made them.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from iadr1.errors import Iadr1Error
from iadr1.params import load
from tasks._environment import switch_telemetry_off
from tasks._run import Workspace

DECIDED = (0, 3)
# A change under review runs its code in these processes: they record into mlflow.db here and get no registry.
WITHHELD = ("MLFLOW_", "PREFECT_API_")


class CannotDecide(Iadr1Error):
    """The gate has no evaluations to decide about."""


@dataclass(frozen=True, slots=True)
class Side:
    """A commit that is laid out in a folder, and the parameters that its evaluations were made with."""

    folder: Path
    experiment: str | None

    def run(self, *command: str, told: bool = True) -> str:
        """What a command in this folder prints; raises CannotDecide with its last words when it fails."""
        done = self._ended(*command)
        if told:
            sys.stderr.write(done.stdout)
        if done.returncode != 0:
            last = (done.stdout.strip().splitlines() or ["its words stand above"])[-1]
            raise CannotDecide(f"`{' '.join(command[2:])}` ended with exit code {done.returncode} ({last}). Mend that first.")
        return done.stdout

    def _ended(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(WITHHELD) or "TELEMETRY" in name}
        # From the folder, not from where this process found its modules.
        environment |= {"PYTHONPATH": str(self.folder)}
        return subprocess.run(command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, text=True, check=False)

    def pipeline(self) -> str:
        """The dvc.yaml of the experiment, which is composed first."""
        if self.experiment is None:
            return "dvc.yaml"
        return self.run(sys.executable, "-m", "tasks._experiment", self.experiment, told=False).strip()

    def evaluations(self, *, locked: bool) -> Path:
        """The folder of predictions, made or brought up to date."""
        pipeline = self.pipeline()
        # The group of all data sets; what comes after it would register.
        target = f"{pipeline}:evaluate"
        if locked:
            self._require_lock(pipeline, target)
            self.run(sys.executable, "-m", "dvc", "pull", "--allow-missing", target)
        else:
            self.run(sys.executable, "-m", "dvc", "repro", *self._pulling(), target)
        params_file = (self.folder / pipeline).with_name("params.yaml")
        return self.folder / Workspace.of(load(params_file), params_file).predictions

    def _pulling(self) -> Sequence[str]:
        # Without a remote DVC would fail at what it has in its own cache.
        remote = self._ended(sys.executable, "-m", "dvc", "config", "core.remote").stdout.strip()
        return ("--pull", "--allow-missing") if remote else ()

    def _require_lock(self, pipeline: str, target: str) -> None:
        lock = str(Path(pipeline).with_name("dvc.lock"))
        kept = subprocess.run(["git", "ls-files", "--error-unmatch", lock], cwd=self.folder, capture_output=True, check=False)
        if kept.returncode != 0:
            raise CannotDecide(f"{lock} is not committed, so nothing says what was evaluated. Run without --locked, or `git add {lock}`.")
        # Where a stage would run, DVC stops at what the next one would read of it.
        dry = self._ended(sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing", target)
        stale = stale_stages(dry.stdout)
        if stale:
            raise CannotDecide(f"{lock} is out of date: {', '.join(stale)} would run. `dvc repro`, `dvc push`, and commit {lock}.")
        if dry.returncode != 0:
            raise CannotDecide(f"`dvc repro --dry {target}` ended with exit code {dry.returncode}; its words stand above. Mend that first.")


def stale_stages(said: str) -> list[str]:
    """The stages that `dvc repro --dry` says it would run."""
    found = [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage '")]
    return sorted({name.rpartition(":")[2] for name in found})


@contextmanager
def commit_of(reference: str, experiment: str | None) -> Iterator[Side]:
    """Another commit in a folder of its own, which shares DVC's cache with this one, and what is remembered of runs with it."""
    with TemporaryDirectory(prefix="iadr1-gate-") as parent:
        folder = Path(parent, "base")
        _git("worktree", "add", "--detach", "--quiet", str(folder), reference)
        side = Side(folder, experiment)
        try:
            cache = Side(Path.cwd(), None).run(sys.executable, "-m", "dvc", "cache", "dir", told=False).strip()
            side.run(sys.executable, "-m", "dvc", "cache", "dir", "--quiet", "--local", cache)
            yield side
        finally:
            _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotDecide(
            f"`git {' '.join(arguments)}`: {done.stderr.strip() or 'no such commit'}. Fetch that commit, or name another with --base."
        )


def decision(candidate: Path, live: str, params: Path, output: Path) -> int:
    """What `iadr1 gate` decides; anything but passed and refused is no decision."""
    command = [sys.executable, "-m", "iadr1.cli", "gate", "--candidate", str(candidate), "--live", live]
    code = subprocess.run([*command, "--params", str(params), "--output", str(output)], check=False).returncode
    return code if code in DECIDED else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Decide about the working tree; the exit code says how."""
    switch_telemetry_off()
    told = _parser().parse_args(arguments)
    here = Side(Path.cwd(), told.experiment)
    try:
        if told.base:
            _git("rev-parse", "--verify", "--quiet", f"{told.base}^{{commit}}")
        params = (here.folder / here.pipeline()).with_name("params.yaml")
        candidate = here.evaluations(locked=told.locked)
        if told.live:
            return decision(candidate, told.live, params, told.output)
        with commit_of(told.base, told.experiment) as base:
            return decision(candidate, str(base.evaluations(locked=told.locked)), params, told.output)
    except Iadr1Error as error:
        print(f"gate: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tasks._gate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = parser.add_mutually_exclusive_group(required=True)
    beside.add_argument("--base", metavar="COMMIT", help="compare with the evaluations of this commit, made in a folder of its own")
    beside.add_argument("--live", metavar="MODEL", help="or with models:/NAME@production, an evaluation, or none")
    parser.add_argument("--experiment", metavar="NAME", help="of experiments/NAME.yaml (default: the project's own parameters)")
    parser.add_argument("--locked", action="store_true", help="train nothing: dvc.lock says what was evaluated, the remote has it")
    parser.add_argument(
        "--output", type=Path, default=Path("reports", "gate"), help="where decision.json and decision.md go (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
