"""What every stage shares: its folders, its command line, its errors, and outputs that are there whole or not at all."""

import argparse
import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iadr1.errors import Iadr1Error, Stopped
from iadr1.params import Params, load
from tasks._environment import switch_telemetry_off
from tasks._logs import logged, safe

SECONDS_FOR_THE_FIRST = 10.0


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where a run reads and writes; every path is relative to the project's root."""

    name: str
    params_file: Path
    raw: Path
    data: Path
    models: Path
    reports: Path
    checkpoints: Path
    prepared: Path  # the folder of sample files that `prepare` writes
    pa_sft: Path  # the model that SC-GRPO starts from

    @classmethod
    def of(cls, params: Params, params_file: Path) -> "Workspace":
        """The folders that the parameters name."""
        home = params.experiment
        shared = (home.prepared or f"{home.data}/prepared", home.pa_sft or f"{home.models}/pa_sft")
        folders = (Path(folder) for folder in (home.data, home.models, home.reports, home.checkpoints, *shared))
        return cls(home.name, params_file, _raw(params), *folders)

    @property
    def predictions(self) -> Path:
        """The folder of predictions that `evaluate` writes."""
        return self.data / "predictions"


def _raw(params: Params) -> Path:
    return Path((params.fetch.source == "folder" and params.fetch.path) or params.experiment.fetched)


def run_stage(
    name: str,
    main: Callable[..., None],
    *,
    options: Mapping[str, Callable[[str], Any]] | None = None,
    flags: Mapping[str, str] | None = None,
) -> None:
    """Run a stage's `main(params, workspace, **options, **flags)` from the command line; exit 1 with one clear line for what a user can mend.

    `options` maps a name to what reads its value, `flags` a name to its help.
    """
    switch_telemetry_off()
    given = vars(_parser(name, main, options or {}, flags or {}).parse_args())
    with logged(name):
        _run(name, main, given.pop("params"), given)


def _run(name: str, main: Callable[..., None], params_file: Path, given: Mapping[str, Any]) -> None:
    try:
        params = load(params_file)
        main(params, Workspace.of(params, params_file), **given)
    except Stopped as error:
        if is_main_process():
            print(f"{name}: {error}", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    except Iadr1Error as error:
        if not is_main_process():
            # What every process finds, the first one says: its launcher ends this one meanwhile.
            time.sleep(SECONDS_FOR_THE_FIRST)
        sys.exit(safe(f"{name}: {error}"))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.exit(f"{name}: {disk_full(error)}")


def is_main_process() -> bool:
    """Whether this process is the one that records, writes and speaks; torchrun numbers them."""
    return os.environ.get("RANK", "0") == "0"


def disk_full(error: OSError) -> str:
    """What to tell a person whose disk is full."""
    where = Path(error.filename) if error.filename else Path.cwd()
    return f"the disk is full ({error.strerror}: {where}). Nothing half-written is left; free some space and run again."


def _parser(
    name: str, main: Callable[..., None], options: Mapping[str, Callable[[str], Any]], flags: Mapping[str, str]
) -> argparse.ArgumentParser:
    about = sys.modules[main.__module__].__doc__
    parser = argparse.ArgumentParser(f"python -m tasks.{name}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="parameter file (default: params.yaml)")
    for option, kind in options.items():
        parser.add_argument(f"--{option}", type=kind, required=True)
    for flag, about_flag in flags.items():
        parser.add_argument(f"--{flag}", action="store_true", help=about_flag)
    return parser


@contextmanager
def fresh_directory(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` that becomes `path` at the end; an error or a kill leaves what was there before."""
    beside = path.with_name(f".{path.name}.partial")
    remove(beside)
    beside.mkdir(parents=True)
    try:
        yield beside
        remove(path)
        beside.rename(path)
    finally:
        remove(beside)


@contextmanager
def fresh_file(path: Path) -> Iterator[Path]:
    """A file beside `path`, to be written, that becomes `path` at the end; an error or a kill leaves what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
