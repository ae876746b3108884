"""What is known about an image: the record that prompts, rewards, training and reports share."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from iadr1.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Sample:
    """One image to inspect, with its annotation.

    `id` names the sample in every file and is never a disk path. `images` holds the query image last, as a path. `location` is in words ("top left"),
    `type` a defect type of the taxonomy; both are None where no annotation exists. `visibility` is defect contrast (0-1) times the square root of
    its area share: small is hard to see. `physical` names the part or place that was photographed, None where each image shows another one: images of
    one physical sample are never on both sides of a split.
    """

    id: str
    dataset: str
    category: str
    images: tuple[str, ...]
    anomalous: bool
    location: str | None = None
    type: str | None = None
    reasoning: str | None = None
    references: tuple[str, ...] = ()
    mask: str | None = None
    visibility: float | None = None
    physical: str | None = None

    @classmethod
    def from_json(cls, line: str, *, source: str = "sample") -> "Sample":
        """The sample of one JSON line; raises DatasetError that names `source` when the line is not one."""
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{source}: not JSON ({error}). Re-run `dvc repro prepare`.") from error
        known = {field.name for field in fields(cls)}
        required = {"id", "dataset", "category", "images", "anomalous"}
        if not isinstance(row, dict) or not required <= row.keys() <= known:
            found = sorted(row) if isinstance(row, dict) else type(row).__name__
            raise DatasetError(f"{source}: a sample has {sorted(required)} and optionally {sorted(known - required)}; found {found}.")
        return cls(**{**row, "images": tuple(row["images"]), "references": tuple(row.get("references", ()))})

    def to_json(self) -> str:
        """One JSON line, fields in the order of this class."""
        return json.dumps(asdict(self), ensure_ascii=False)


def read_samples(path: Path) -> list[Sample]:
    """The samples of a JSONL file; raises DatasetError with file and line."""
    if not path.is_file():
        raise DatasetError(f"{path}: no such file. Run `dvc repro prepare` to make it.")
    with path.open(encoding="utf-8") as lines:
        return [Sample.from_json(line, source=f"{path}:{number}") for number, line in enumerate(lines, 1)]


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write samples as JSONL, whole or not at all."""
    write_lines(path, (sample.to_json() for sample in samples))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines beside `path` and rename, so that a kill leaves the old file or the new one; a pipe or device is written as it is."""
    if path.is_relative_to("/dev") or (path.exists() and not path.is_file()):
        with path.open("w", encoding="utf-8") as file:
            file.writelines(_terminated(lines))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.writelines(_terminated(lines))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _terminated(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield line + "\n"
