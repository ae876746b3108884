"""Downloads: the files of a manifest from an S3 store or from the Hugging Face hub, each there whole and verified, or not at all."""

import glob
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from iadr1.datasets import refuse
from iadr1.errors import DatasetError, ParamsError
from iadr1.params import Fetch
from tasks._manifest import WRITE_ONE, Entry, faults_of, found_below, read_manifest
from tasks._run import remove
from tasks._storage import WORKERS, bring, store_at

INCOMPLETE = ".incomplete"  # hidden names are in no manifest


def download(source: Fetch, target: Path) -> list[Entry]:
    """Make `target` hold the files of the manifest and nothing else; what is there already, or came before a kill, is not brought again.

    Until all have come they are in a folder beside `target`. Raises DatasetError that names the files that cannot be had.
    """
    if not source.path or not source.manifest:
        lacking, what = ("manifest", f"the list of its files. {WRITE_ONE}") if source.path else ("path", "where the files are.")
        raise ParamsError(f"fetch.{lacking} is empty, but fetch.source is {source.source}. Name {what}")
    entries = read_manifest(Path(source.manifest))
    beside = target.with_name(f".{target.name}.partial")
    here = target if target.is_dir() else beside
    faults = faults_of(entries, found_below(here, [entry.path for entry in entries]))
    if here == target:
        if not faults and not _others(target, entries):
            return entries
        remove(beside)
        target.rename(beside)
    beside.mkdir(parents=True, exist_ok=True)
    for path in _others(beside, entries):
        if not path.name.startswith("."):
            remove(path)
    _bring([entry for entry in entries if entry.path in faults], source, beside)
    for path in _others(beside, entries):
        remove(path)
    remove(target)
    beside.rename(target)
    return entries


def _bring(lacking: Sequence[Entry], source: Fetch, into: Path) -> None:
    for entry in lacking:
        remove(into / entry.path)
    if not lacking:
        return
    _require_space(into, sum(entry.bytes for entry in lacking) - sum(_incomplete(into)))
    faults = SOURCES[source.source](source, lacking, into)
    refuse(
        f"fetch: {len(faults)} of {len(lacking)} files of {source.path} are not what {source.manifest} says",
        [f"{path}: {fault}" for path, fault in sorted(faults.items())],
        do="Correct the source or the manifest. What came whole is kept; run again to bring the rest.",
    )


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DatasetError(
            f"fetch: {needed / 1e9:,.2f} GB have to come, but {folder.parent} has {free / 1e9:,.2f} GB free. "
            "Free some space, or move the project to a larger disk."
        )


def _incomplete(folder: Path) -> list[int]:
    """The sizes of what earlier runs left unfinished."""
    return [path.stat().st_size for path in (folder / INCOMPLETE).glob("*") if path.is_file()]


def _from_s3(source: Fetch, lacking: Sequence[Entry], into: Path) -> dict[str, str]:
    store = store_at(str(source.path))
    (into / INCOMPLETE).mkdir(exist_ok=True)
    total = sum(entry.bytes for entry in lacking)
    with (
        tqdm(total=total, initial=sum(_incomplete(into)), desc="fetching", unit="B", unit_scale=True) as bar,
        ThreadPoolExecutor(WORKERS) as pool,
    ):

        def brought(entry: Entry) -> str | None:
            """What is wrong with the file that came, None where it is the one listed."""
            return bring(store, entry, to=into / entry.path, partial=into / INCOMPLETE / _name(entry), moved=bar.update)

        faults = zip(lacking, pool.map(brought, lacking), strict=True)
        return {entry.path: fault for entry, fault in faults if fault}


def _name(entry: Entry) -> str:
    """A name for an unfinished file: of another length than the path's, and another one when the manifest changes."""
    return hashlib.sha256(f"{entry.path}\0{entry.sha256}".encode()).hexdigest()


def _from_hub(source: Fetch, lacking: Sequence[Entry], into: Path) -> dict[str, str]:
    from httpx2 import HTTPError
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError

    if not re.fullmatch(r"[0-9a-f]{40}", source.revision or ""):
        raise ParamsError(
            f"fetch.revision: {source.revision!r} is no commit hash, and a name may mean other files tomorrow. "
            "Write the 40 digits that the hub shows under Files, History."
        )
    # Not path by path: the hub's library compares every file of the data set with every pattern.
    folders = {entry.path.rpartition("/")[0] + "/" if "/" in entry.path else entry.path for entry in lacking}
    try:
        # Where the hub cannot be asked, snapshot_download takes what is in the folder for the whole.
        HfApi().dataset_info(str(source.path), revision=source.revision)
        snapshot_download(
            str(source.path),
            repo_type="dataset",
            revision=source.revision,
            local_dir=into,
            allow_patterns=sorted(map(glob.escape, folders)),
        )
    except (HTTPError, HFValidationError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk, not the hub
            for rest in into.glob(".cache/**/*.incomplete"):
                rest.unlink()
            raise
        raise DatasetError(
            f"{source.path} at {source.revision}: the hub does not give it ({' '.join(str(error).split())}). "
            "Correct fetch.path and fetch.revision, set HF_TOKEN to a token that may read it, or run again to go on."
        ) from error
    faults = faults_of(lacking, found_below(into, [entry.path for entry in lacking]))
    for path in faults:
        (into / path).unlink(missing_ok=True)
    return faults


SOURCES: dict[str, Callable[[Fetch, Sequence[Entry], Path], dict[str, str]]] = {"s3": _from_s3, "hub": _from_hub}


def _others(folder: Path, entries: Sequence[Entry]) -> list[Path]:
    """What a folder holds beside the files of the entries and their folders."""
    files = {folder / entry.path for entry in entries}
    folders = {parent for file in files for parent in file.parents}
    others: list[Path] = []
    for here, below, names in os.walk(folder):
        others += [Path(here, name) for name in below if Path(here, name) not in folders]
        others += [Path(here, name) for name in names if Path(here, name) not in files]
        below[:] = [name for name in below if Path(here, name) in folders]
    return others
