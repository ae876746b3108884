"""How each data set lies on disk: one reader a layout, and one line in `LAYOUTS`.

A reader lists a folder without opening its images. Labels come from annotation files and from the place of a folder in its layout, never
from a word in a path. What masks say (location, visibility) is added later by `iadr1.masks.measured`.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from iadr1.datasets.folders import IMAGES, NAMED, NORMAL, refuse
from iadr1.datasets.readers import btad, dagm, ds_mvtec, mvtec, real_iad, sdd, sdd2, visa
from iadr1.datasets.shapes import MASKS, coco, yolo
from iadr1.errors import DatasetError
from iadr1.samples import Sample

__all__ = [
    "IMAGES", "LAYOUTS", "NAMED", "NORMAL", "TRAINING_SPLITS", "class_of", "faults_of", "listed", "refuse", "samples_of", "split_of", "with_references",
]  # fmt: skip

LAYOUTS: dict[str, Callable[[Path, str], list[Sample]]] = {
    "real_iad": real_iad,
    "mvtec": mvtec,
    "ds_mvtec": ds_mvtec,
    "visa": visa,
    "mpdd": mvtec,
    "dagm": dagm,
    "dtd": mvtec,
    "sdd": sdd,
    "sdd2": sdd2,
    "btad": btad,
    "coco": coco,
    "yolo": yolo,
}
TRAINING_SPLITS: dict[str, tuple[str, ...]] = defaultdict(
    lambda: ("train",), real_iad=("train", "test")
)  # all of Real-IAD is Expert-AD's source


def samples_of(layout: str, root: Path, dataset: str) -> list[Sample]:
    """All samples of a data set, by id; raises DatasetError for a missing or empty folder, missing files and ids that two images share."""
    samples = listed(layout, root, dataset)
    if not samples:
        raise DatasetError(f"{dataset}: no images in {root} where layout {layout} expects them ({LAYOUTS[layout].__doc__}).")
    for fault in faults_of(samples):
        refuse(f"{dataset}: {fault.what}", fault.found, do=fault.do)
    return samples


def listed(layout: str, root: Path, dataset: str) -> list[Sample]:
    """The samples that a reader finds, by id, whether or not their files are there; raises DatasetError for what it cannot read at all."""
    if layout not in LAYOUTS:
        raise DatasetError(f"{dataset}: layout {layout!r} is not known; known are {', '.join(LAYOUTS)}.")
    if not root.is_dir():
        raise DatasetError(f"{dataset}: no folder {root}. Run `dvc repro fetch`, or correct the folder in the parameters.")
    return sorted(LAYOUTS[layout](root, dataset), key=lambda sample: sample.id)


class Fault(NamedTuple):
    """What makes a listing unfit: its kind, in words, where it was found (nowhere: there is none), and what to do."""

    kind: str
    what: str
    found: list[str]
    do: str


def faults_of(samples: Sequence[Sample]) -> list[Fault]:
    """Every kind of fault that shows without opening a file."""
    names = Counter(sample.id for sample in samples)
    there = _Present()
    images = [path for sample in samples for path in sample.images if path not in there]
    lacking = [f"{sample.images[-1]}; expected {sample.mask}" for sample in samples if sample.mask and sample.mask not in there]
    undrawn = any(f"/{MASKS}/" in line for line in lacking)
    return [
        Fault(
            "same-name",
            "two images have the same name but for the ending",
            [name for name, count in names.items() if count > 1],
            "Rename or remove one of each.",
        ),
        Fault(
            "missing-file",
            "files that its annotation names are missing",
            images,
            "Complete the download, or remove the category from the annotation.",
        ),
        Fault(
            "missing-mask",
            "no mask for defective images",
            lacking,
            "Draw them: `iadr1 data masks FOLDER`." if undrawn else "Add the masks, or remove the images.",
        ),
    ]


class _Present:
    """Which files there are, by one look at each folder: asking for 200,000 files one by one takes seconds."""

    def __init__(self) -> None:
        self._folders: dict[str, frozenset[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = _names(Path(folder or "."))
        return name in self._folders[folder]


def _names(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()


def split_of(sample: Sample) -> str:
    """The part of its data set that a sample belongs to: train or test."""
    return sample.id.split("/")[2]


def class_of(sample: Sample) -> str:
    """The name of its kind in its data set's own words, as a folder or an annotation has it: good, broken_large, …"""
    return sample.id.split("/")[3]


def with_references(sample: Sample, normal: Sequence[Sample], *, most: int = 4) -> Sample:
    """The sample with up to `most` normal images of its category for few-shot prompts, drawn by its id, of other physical samples."""
    others = [
        other.images[-1]
        for other in normal
        if not other.anomalous
        and other.category == sample.category
        and other.id != sample.id
        and (other.physical or other.id) != sample.physical
    ]
    return replace(sample, references=tuple(random.Random(sample.id).sample(others, min(most, len(others)))))
