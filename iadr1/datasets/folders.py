"""What the readers share: files listed by folder and never opened, tables and JSON of a bearable size, and the samples made of them."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from iadr1.defect_types import from_folder
from iadr1.errors import DatasetError
from iadr1.samples import Sample

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
NORMAL = "good"  # the name that MVTec-like layouts reserve for the folder of normal images
NAMED = 20  # how many faults a message lists
LARGEST_JSON = 512 << 20  # bytes; Python needs about ten times as much to hold it

type_of = lru_cache(maxsize=4096)(from_folder)


def refuse(fault: str, found: Iterable[str], *, do: str) -> None:
    """Raise DatasetError that names the faults found, if any: all are counted, the first are listed."""
    names = list(found)
    if names:
        rest = f"\n  … and {len(names) - NAMED} more" if len(names) > NAMED else ""
        raise DatasetError(f"{fault} ({len(names)}):\n  " + "\n  ".join(names[:NAMED]) + rest + f"\n{do}")


def sample_of(
    dataset: str, category: str, split: str, kind: str, image: Path, *, anomalous: bool, mask: Path | None = None, word: str | None = None
) -> Sample:
    """A sample whose type is that of its folder, or of `word` where the annotation has one; a mask is kept for a defect only."""
    return Sample(
        id=f"{dataset}/{category}/{split}/{kind}/{image.stem}",
        dataset=dataset,
        category=category,
        images=(image.as_posix(),),
        anomalous=anomalous,
        type=type_of(kind if word is None else word) if anomalous else None,
        mask=mask.as_posix() if anomalous and mask else None,
    )


def class_folders(
    images: Path, truth: Path, dataset: str, category: str, split: str, *, normal: str = NORMAL, only: tuple[str, ...] | None = None
) -> Iterator[Sample]:
    """The samples of IMAGES/{good, TYPE, …}; a type without a folder of masks has no masks, one with a folder should have them all."""
    for folder in folders_in(images):
        if only and folder.name not in only:
            continue
        anomalous, place = folder.name != normal, truth / folder.name
        masks = masks_in(place, "_mask") if anomalous else {}
        for file in images_in(folder):
            mask = masks.get(file.stem, place / f"{file.stem}_mask.png") if masks else None
            yield sample_of(dataset, category, split, folder.name, file, anomalous=anomalous, mask=mask)


def masks_in(folder: Path, ending: str) -> dict[str, Path]:
    """The images of a folder by the name of the image that they mark, which stands before `ending`."""
    return {path.stem.removesuffix(ending): path for path in images_in(folder)}


def categories(root: Path, marks: tuple[str, ...]) -> list[Path]:
    """The category folders of a data set, known by what they hold; `root` itself where it is one."""
    if any((root / mark).is_dir() for mark in marks):
        return [root]
    return [
        folder for folder in folders_in(root) if any((folder / mark).is_dir() or (folder / folder.name / mark).is_dir() for mark in marks)
    ]


def grouped(samples: list[Sample], root: Path, dataset: str) -> list[Sample]:
    """The samples with their physical sample from a manifest.csv (columns path, group) in the folder or beside it, where there is one."""
    table = next(
        (folder / "manifest.csv" for folder in (root, root.parent, root.parent.parent) if (folder / "manifest.csv").is_file()), None
    )
    if table is None:
        return samples
    groups = {(table.parent / row["path"]).as_posix(): row["group"] for row in rows(table, ("path", "group"))}
    named = ((sample, groups.get(sample.images[-1], "")) for sample in samples)
    return [replace(sample, physical=f"{dataset}/{group}" if group not in ("", "unknown") else None) for sample, group in named]


def inside(root: Path, path: str) -> Path:
    """A path of an annotation file, refused when it leaves the data set."""
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise DatasetError(f"{root}: its annotation names {path}, which is outside of it. Correct the annotation.")
    return root / path


def folders_in(root: Path) -> list[Path]:
    """The folders directly in a folder, hidden ones left out; none where there is no such folder."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")) if root.is_dir() else []


def images_in(folder: Path) -> list[Path]:
    """The image files directly in a folder, by their endings, hidden ones left out; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES and not path.name.startswith("."))


def words_of(table: Path) -> list[list[str]]:
    """The words of each line of a text; raises DatasetError when it is none."""
    try:
        return [line.split() for line in table.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise DatasetError(f"{table}: not a text in UTF-8 ({error}). Save it as one.") from error


def json_of(file: Path) -> Any:
    """What a JSON file holds; raises DatasetError when it is none, or too large to be an annotation."""
    if file.stat().st_size > LARGEST_JSON:
        raise DatasetError(f"{file}: {file.stat().st_size >> 20} MB of JSON; at most {LARGEST_JSON >> 20} are read. Divide it by category.")
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{file}: not JSON ({error}). Download it again.") from error


def rows(table: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """The rows of a CSV file; raises DatasetError when it lacks one of the columns, or a row one of its values."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not set(columns) <= set(reader.fieldnames or ()):
                raise DatasetError(
                    f"{table}: needs the columns {', '.join(columns)}; found {', '.join(reader.fieldnames or ()) or 'none'}."
                )
            for row in reader:
                if any(row[column] is None for column in columns):
                    raise DatasetError(f"{table}:{reader.line_num}: the row ends early. Correct it: the columns are {', '.join(columns)}.")
                yield row
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{table}: not a CSV file in UTF-8 ({error}). Save it as one.") from error
