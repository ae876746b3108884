"""What models have answered, kept as it comes: a killed evaluation has lost no more than what was being answered, and asks nothing again.

A folder belongs to one model, way of asking, set of images and decoding, and is named by a hash of them. In it each process appends to files
of its own, a line an answer with its text, tokens, reason to end and seconds.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import BinaryIO

from iadr1.engines import Generated
from iadr1.errors import ReportError

FORM = 1  # of a line; part of the folders' names
_FIELDS = {field.name for field in fields(Generated)}


class Answers:
    """The answers in a folder by their sample's id: looked up on disk, so that a million of them take no more memory than their ids."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: dict[str, tuple[Path, int]] = {}
        self._own: BinaryIO | None = None
        self.reload()

    def reload(self) -> None:
        """See what other processes have written; a last line without its end was cut by a kill and is not an answer."""
        for path in sorted(self.folder.glob("*.jsonl")):
            for offset, line in _whole_lines(path):
                self.places[_read(line, f"{path}, byte {offset}")[0]] = (path, offset)

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def add(self, answers: Iterable[tuple[str, Generated]]) -> None:
        """Append some answers in one piece."""
        if self._own is None:
            self._own = _new_file(self.folder)
        lines: list[bytes] = []
        path, offset = Path(self._own.name), self._own.tell()
        for name, answer in answers:
            lines.append(json.dumps({"id": name, **asdict(answer)}, ensure_ascii=False).encode() + b"\n")
            self.places[name] = (path, offset)
            offset += len(lines[-1])
        self._own.write(b"".join(lines))
        self._own.flush()

    def of(self, names: Iterable[str]) -> Iterator[Generated]:
        """The answers of these samples, one by one; raises ReportError for one that is not there."""
        opened: dict[Path, BinaryIO] = {}
        try:
            for name in names:
                if name not in self.places:
                    raise ReportError(f"{self.folder}: {name} was not answered. Run the evaluation again: it goes on from there.")
                path, offset = self.places[name]
                file = opened.get(path) or opened.setdefault(path, path.open("rb"))
                file.seek(offset)
                yield _read(file.readline(), f"{path}, byte {offset}")[1]
        finally:
            for file in opened.values():
                file.close()


def _whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield offset, line
            offset += len(line)


def _read(line: bytes, source: str) -> tuple[str, Generated]:
    try:
        row = json.loads(line)
        name = row.pop("id")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(
            f"{source}: no answer ({type(error).__name__}: {error}). Remove the file; what it holds is asked again."
        ) from error
    if row.keys() != _FIELDS:
        raise ReportError(f"{source}: an answer has {sorted(_FIELDS)}; found {sorted(row)}. Remove the file; what it holds is asked again.")
    return name, Generated(**row)


def _new_file(folder: Path) -> BinaryIO:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(10_000):
        with suppress(FileExistsError):
            return (folder / f"{os.getpid()}-{number:04}.jsonl").open("xb")
    raise ReportError(f"{folder}: ten thousand files of answers by one process. Remove the folder.")
