"""Manifests: which files there are, their sizes and SHA-256, as a CSV of path, bytes, sha256. What `fetch` brings is checked against one.

python -m tasks._manifest FOLDER MANIFEST.csv    writes the manifest of every file below FOLDER but hidden ones
"""

import argparse
import csv
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath

from iadr1.datasets import refuse
from iadr1.errors import DatasetError, Iadr1Error
from iadr1.images import content_hash
from tasks._parallel import each
from tasks._run import fresh_file

WRITE_ONE = "Write one where the files are: python -m tasks._manifest FOLDER MANIFEST.csv"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file: its path below the root, with slashes, its size and its SHA-256 in hexadecimal."""

    path: str
    bytes: int
    sha256: str


def read_manifest(path: Path) -> list[Entry]:
    """The entries of a manifest; raises DatasetError that names the line that is none, or that leads out of the root."""
    if not path.is_file():
        raise DatasetError(f"fetch.manifest: no file {path}. {WRITE_ONE}")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if tuple(header) != Entry.__slots__:
                raise DatasetError(f"{path}: its first line has to be {','.join(Entry.__slots__)}; found {header}. {WRITE_ONE}")
            entries = [_entry(row, f"{path}:{rows.line_num}") for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: not a CSV file in UTF-8 ({error}). {WRITE_ONE}") from error
    if not entries:
        raise DatasetError(f"{path}: names no files. {WRITE_ONE}")
    _refuse_clashes(path, entries)
    return entries


def write_manifest(path: Path, entries: Iterable[Entry]) -> None:
    """Write entries in their order."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([Entry.__slots__, *map(astuple, entries)])


def faults_of(expected: Iterable[Entry], found: Mapping[str, Entry]) -> dict[str, str]:
    """What is wrong with each path whose file is missing or is another than expected."""
    return {entry.path: fault for entry in expected if (fault := _fault(entry, found.get(entry.path)))}


def found_below(root: Path, paths: Iterable[str]) -> dict[str, Entry]:
    """The entries of those paths that are files; raises DatasetError for files that cannot be read."""
    there = [path for path in paths if (root / path).is_file()]
    hashes = dict(zip(there, each(hashed, [root / path for path in there], doing="checking", waits=True), strict=True))
    unreadable = [f"{root / path}: {error.strerror}" for path, error in hashes.items() if isinstance(error, OSError)]
    refuse("files that cannot be read", unreadable, do="Correct their permissions, or remove them.")
    return {path: Entry(path, (root / path).stat().st_size, str(sha256)) for path, sha256 in hashes.items()}


def hashed(path: Path) -> str | OSError:
    """The SHA-256 of a file, or why it cannot be read."""
    try:
        return content_hash(path)
    except OSError as error:
        return error


def files_below(folder: Path) -> Iterator[Path]:
    """Files at any depth but hidden ones, linked folders included; a link that leads back is not followed twice."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in sorted(folders) if not name.startswith(".") and os.path.realpath(Path(here, name)) not in seen]
        seen.update(os.path.realpath(Path(here, name)) for name in folders)
        yield from (Path(here, name) for name in files if not name.startswith("."))


def _entry(row: list[str], source: str) -> Entry:
    if len(row) != 3 or not re.fullmatch(r"[0-9]{1,18}", row[1], re.ASCII) or not re.fullmatch(r"[0-9a-f]{64}", row[2]):
        raise DatasetError(f"{source}: expected a path, a number of bytes and 64 hexadecimal digits; found {row}. {WRITE_ONE}")
    # Hidden names are for what fetch keeps beside the files; ".." is one of them.
    if row[0] != PurePosixPath(row[0]).as_posix() or any(not name or name[0] in "./" for name in row[0].split("/")) or "\0" in row[0]:
        raise DatasetError(f"{source}: {row[0]!r} is no path below a folder, or a hidden one. Correct the manifest.")
    return Entry(row[0], int(row[1]), row[2])


def _refuse_clashes(path: Path, entries: list[Entry]) -> None:
    seen: set[str] = set()
    twice = [entry.path for entry in entries if entry.path in seen or seen.add(entry.path)]  # type: ignore[func-returns-value]
    refuse(f"{path}: paths that are there twice", twice, do="Keep one line of each.")
    folders = sorted({str(folder) for entry in entries for folder in PurePosixPath(entry.path).parents} & seen)
    refuse(f"{path}: paths that are a file and a folder", folders, do="Correct the manifest.")


def _fault(expected: Entry, found: Entry | None) -> str | None:
    if found is None:
        return "is missing"
    if found.bytes != expected.bytes:
        return f"has {found.bytes:,} bytes, the manifest says {expected.bytes:,}"
    return None if found.sha256 == expected.sha256 else f"has the SHA-256 {found.sha256[:12]}…, the manifest says {expected.sha256[:12]}…"


def main() -> None:
    """Write the manifest that the command line asks for."""
    parser = argparse.ArgumentParser("python -m tasks._manifest", description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("manifest", type=Path, metavar="MANIFEST.csv")
    given = parser.parse_args()
    paths = sorted(path.relative_to(given.folder).as_posix() for path in files_below(given.folder))
    if not paths:
        sys.exit(f"manifest: no files below {given.folder}. Name a folder that holds them.")
    try:
        entries = found_below(given.folder, paths).values()
        with fresh_file(given.manifest) as file:
            write_manifest(file, entries)
        read_manifest(given.manifest)
    except Iadr1Error as error:
        sys.exit(f"manifest: {error}")
    print(f"manifest: {len(entries):,} files, {sum(entry.bytes for entry in entries):,} bytes in {given.manifest}.")


if __name__ == "__main__":
    main()
