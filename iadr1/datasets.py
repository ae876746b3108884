"""How each data set lies on disk: one reader a layout, and one line in `LAYOUTS`.

A reader lists a folder without opening its images. Labels come from annotation files and from the place of a folder in its layout, never
from a word in a path. What masks say (location, visibility) is added later by `iadr1.masks.measured`.
"""

import csv
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from iadr1.defect_types import from_folder
from iadr1.errors import DatasetError
from iadr1.samples import Sample

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
NORMAL = "good"  # the name that MVTec-like layouts reserve for the folder of normal images
NAMED = 20  # how many faults a message lists
TRAINING_SPLITS: dict[str, tuple[str, ...]] = defaultdict(
    lambda: ("train",), real_iad=("train", "test")
)  # all of Real-IAD is Expert-AD's source


def samples_of(layout: str, root: Path, dataset: str) -> list[Sample]:
    """All samples of a data set, by id; raises DatasetError for a missing or empty folder, missing files and ids that two images share."""
    if layout not in LAYOUTS:
        raise DatasetError(f"{dataset}: layout {layout!r} is not known; known are {', '.join(LAYOUTS)}.")
    if not root.is_dir():
        raise DatasetError(f"{dataset}: no folder {root}. Run `dvc repro fetch`, or correct the folder in the parameters.")
    samples = sorted(LAYOUTS[layout](root, dataset), key=lambda sample: sample.id)
    if not samples:
        raise DatasetError(f"{dataset}: no images in {root} where layout {layout} expects them ({LAYOUTS[layout].__doc__}).")
    shared = [sample_id for sample_id, count in Counter(sample.id for sample in samples).items() if count > 1]
    refuse(f"{dataset}: two images have the same name but for the ending", shared, do="Rename or remove one of each.")
    return samples


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


def refuse(fault: str, found: Iterable[str], *, do: str) -> None:
    """Raise DatasetError that names the faults found, if any: all are counted, the first are listed."""
    names = list(found)
    if names:
        rest = f"\n  … and {len(names) - NAMED} more" if len(names) > NAMED else ""
        raise DatasetError(f"{fault} ({len(names)}):\n  " + "\n  ".join(names[:NAMED]) + rest + f"\n{do}")


def real_iad(root: Path, dataset: str) -> list[Sample]:
    """realiad_jsons/CATEGORY.json and CATEGORY/{OK,NG/…}/S0001/IMAGE"""
    samples: list[Sample] = []
    for file in sorted((root / "realiad_jsons").rglob("*.json")):
        content = _json(file)
        folder = _real_iad_images(root, content["meta"].get("prefix", f"{file.stem}/"))
        for split in ("train", "test"):
            samples += [_real_iad_sample(entry, folder, dataset, split, content["meta"]["normal_class"]) for entry in content[split]]
    _refuse_missing(dataset, samples)
    # A defective part also has views that do not show the defect: they carry no mask and are neither normal nor defective.
    return [sample for sample in samples if sample.mask or not sample.anomalous]


def _real_iad_images(root: Path, prefix: str) -> Path:
    sizes = [folder for folder in sorted(root.glob("realiad_*")) if (folder / prefix).is_dir()]  # the releases of 256, 512 and 1024 pixels
    return root / prefix if (root / prefix).is_dir() or not sizes else sizes[0] / prefix


def _real_iad_sample(entry: dict[str, str | None], folder: Path, dataset: str, split: str, normal_class: str) -> Sample:
    try:
        category, kind, image = str(entry["category"]), str(entry["anomaly_class"]), str(entry["image_path"])
    except KeyError as error:
        raise DatasetError(
            f"{dataset}: an entry for {folder} has no {error}; found {sorted(entry)}. Real-IAD's own JSON has it."
        ) from error
    mask, anomalous = entry.get("mask_path"), kind != normal_class
    sample = _sample(
        dataset,
        category,
        split,
        kind,
        _inside(folder, image),
        anomalous=anomalous,
        mask=_inside(folder, mask) if anomalous and mask else None,
    )
    return replace(sample, physical=f"{dataset}/{category}/{Path(image).parent.as_posix()}")


def mvtec(root: Path, dataset: str) -> list[Sample]:
    """CATEGORY/{train/good, test/{good,TYPE}, ground_truth/TYPE/NAME_mask.png}, also train_defect/TYPE, train_defect_ground_truth/TYPE"""
    samples = [sample for category in _categories(root, ("train", "test")) for sample in _mvtec_category(category, dataset, category.name)]
    return _grouped(samples, root, dataset)


def _mvtec_category(folder: Path, dataset: str, category: str) -> Iterator[Sample]:
    for images, masks in (("train", "ground_truth"), ("test", "ground_truth"), ("train_defect", "train_defect_ground_truth")):
        yield from _class_folders(folder / images, folder / masks, dataset, category, images.split("_")[0])


def ds_mvtec(root: Path, dataset: str) -> list[Sample]:
    """CATEGORY/{image/good, image/TYPE, mask/TYPE}; normal images for references from train/good here or in MVTec-AD beside it"""
    samples: list[Sample] = []
    for category in _categories(root, ("image",)):
        samples += _class_folders(category / "image", category / "mask", dataset, category.name, "test")
        for train in (category / "train", root.parent / "MVTec-AD" / category.name / "train"):
            if train.is_dir():
                samples += _class_folders(train, category / "mask", dataset, category.name, "train")
                break
    return samples


def visa(root: Path, dataset: str) -> list[Sample]:
    """split_csv/1cls.csv, CATEGORY/Data/{Images/{Normal,Anomaly},Masks/Anomaly}; or MVTec-like CATEGORY/{train,test,ground_truth}"""
    table = root / "split_csv" / "1cls.csv"
    if not table.is_file():
        return mvtec(root, dataset)
    types = {path: word for file in sorted(root.glob("*/image_anno.csv")) for path, word in _visa_types(root, file)}
    samples = [
        _sample(
            dataset, row["object"], row["split"], row["label"], _inside(root, row["image"]), anomalous=row["label"] != "normal",
            mask=_inside(root, row["mask"]) if row["mask"] else None, word=types.get(row["image"], ""),
        )
        for row in _rows(table, ("object", "split", "label", "image", "mask"))
    ]  # fmt: skip
    _refuse_missing(dataset, samples)
    return samples


def _visa_types(root: Path, file: Path) -> Iterator[tuple[str, str]]:
    for row in _rows(file, ("image", "label")):
        if "," not in row["label"]:  # an image with defects of several types has no one type
            yield row["image"], row["label"]


def dagm(root: Path, dataset: str) -> list[Sample]:
    """ClassN/{Train,Test}/{IMAGE.PNG, Label/Labels.txt, Label/NAME_label.PNG}; or re-arranged ClassN/{good,defect}"""
    samples: list[Sample] = []
    for category in _categories(root, ("Train", "Test", NORMAL)):
        nested = category / category.name
        base = nested if (nested / "Test").is_dir() else category
        if (base / NORMAL).is_dir():
            samples += _class_folders(base, base / "mask", dataset, category.name, "test", only=(NORMAL, "defect"))
        for split in ("Train", "Test"):
            samples += _dagm_split(base / split, dataset, category.name, split.lower())
    return samples


def _dagm_split(folder: Path, dataset: str, category: str, split: str) -> Iterator[Sample]:
    masks = {path.stem.removesuffix("_label"): path for path in _images(folder / "Label")}
    defective = _dagm_defective(folder / "Label" / "Labels.txt", masks)
    for image in _images(folder):
        kind = "defect" if image.stem in defective else NORMAL
        yield _sample(dataset, category, split, kind, image, anomalous=image.stem in defective, mask=masks.get(image.stem), word="")


def _dagm_defective(table: Path, masks: dict[str, Path]) -> set[str]:
    """The names that Labels.txt (lines of number, 0 or 1, image, 0, mask or 0) marks as defective; without it, those that have a mask."""
    if not table.is_file():
        return set(masks)
    lines = [line.split() for line in table.read_text(encoding="utf-8").splitlines()]
    return {Path(line[2]).stem for line in lines if len(line) >= 3 and line[1] == "1"}


def sdd(root: Path, dataset: str) -> list[Sample]:
    """kosNN/{PartM.jpg, PartM_label.bmp}; or re-arranged test/{good,defect}"""
    from iadr1.masks import read_mask

    if (root / "test").is_dir():
        return list(_mvtec_category(root, dataset, "commutator"))
    samples = []
    for item in _folders(root):
        masks = {path.stem.removesuffix("_label"): path for path in _images(item) if path.stem.endswith("_label")}
        for image in (path for path in _images(item) if path.stem in masks):
            # Every image has a mask here, and an empty one says «no defect»: the masks, not the images, must be opened.
            anomalous = bool(read_mask(masks[image.stem]).any())
            made = _sample(
                dataset,
                "commutator",
                "test",
                "defect" if anomalous else NORMAL,
                image,
                anomalous=anomalous,
                mask=masks[image.stem],
                word="",
            )
            samples.append(replace(made, id=f"{made.id.rpartition('/')[0]}/{item.name}_{image.stem}", physical=f"{dataset}/{item.name}"))
    return samples


LAYOUTS: dict[str, Callable[[Path, str], list[Sample]]] = {
    "real_iad": real_iad,
    "mvtec": mvtec,
    "ds_mvtec": ds_mvtec,
    "visa": visa,
    "mpdd": mvtec,
    "dagm": dagm,
    "dtd": mvtec,
    "sdd": sdd,
}


def _sample(
    dataset: str, category: str, split: str, kind: str, image: Path, *, anomalous: bool, mask: Path | None = None, word: str | None = None
) -> Sample:
    """A sample whose type is that of its folder, or of `word` where the annotation has one; a mask is kept for a defect only."""
    return Sample(
        id=f"{dataset}/{category}/{split}/{kind}/{image.stem}",
        dataset=dataset,
        category=category,
        images=(image.as_posix(),),
        anomalous=anomalous,
        type=from_folder(kind if word is None else word) if anomalous else None,
        mask=mask.as_posix() if anomalous and mask else None,
    )


def _class_folders(
    images: Path, truth: Path, dataset: str, category: str, split: str, only: tuple[str, ...] | None = None
) -> Iterator[Sample]:
    """The samples of IMAGES/{good, TYPE, …}; a type without a folder of masks has no masks, one with a folder must have them all."""
    for folder in _folders(images):
        if only and folder.name not in only:
            continue
        anomalous, masks = folder.name != NORMAL, _masks(truth / folder.name)
        files = _images(folder)
        if anomalous and masks:
            lacking = [f"{file}; expected {truth / folder.name / file.stem}_mask.png" for file in files if file.stem not in masks]
            refuse(f"{dataset}: no mask for defective images", lacking, do="Add the masks, or remove the images.")
        for file in files:
            yield _sample(dataset, category, split, folder.name, file, anomalous=anomalous, mask=masks.get(file.stem))


def _masks(folder: Path) -> dict[str, Path]:
    return {path.stem.removesuffix("_mask"): path for path in _images(folder)}


def _categories(root: Path, marks: tuple[str, ...]) -> list[Path]:
    """The category folders of a data set, known by what they hold; `root` itself where it is one."""
    if any((root / mark).is_dir() for mark in marks):
        return [root]
    return [
        folder for folder in _folders(root) if any((folder / mark).is_dir() or (folder / folder.name / mark).is_dir() for mark in marks)
    ]


def _grouped(samples: list[Sample], root: Path, dataset: str) -> list[Sample]:
    """The samples with their physical sample from a manifest.csv (columns path, group) in the folder or beside it, where there is one."""
    table = next(
        (folder / "manifest.csv" for folder in (root, root.parent, root.parent.parent) if (folder / "manifest.csv").is_file()), None
    )
    if table is None:
        return samples
    groups = {(table.parent / row["path"]).as_posix(): row["group"] for row in _rows(table, ("path", "group"))}
    named = ((sample, groups.get(sample.images[-1], "")) for sample in samples)
    return [replace(sample, physical=f"{dataset}/{group}" if group not in ("", "unknown") else None) for sample, group in named]


def _refuse_missing(dataset: str, samples: list[Sample]) -> None:
    paths = (path for sample in samples for path in (*sample.images, sample.mask) if path)
    missing = [path for path in paths if not Path(path).is_file()]
    refuse(
        f"{dataset}: files that its annotation names are missing",
        missing,
        do="Complete the download, or remove the category from the annotation.",
    )


def _inside(root: Path, path: str) -> Path:
    """A path of an annotation file, refused when it leaves the data set."""
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise DatasetError(f"{root}: its annotation names {path}, which is outside of it. Correct the annotation.")
    return root / path


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")) if root.is_dir() else []


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES and not path.name.startswith("."))


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{file}: not JSON ({error}). Download it again.") from error
    if not isinstance(content, dict) or not {"meta", "train", "test"} <= content.keys() or "normal_class" not in content["meta"]:
        raise DatasetError(
            f"{file}: Real-IAD's JSON has meta (with normal_class), train and test; found something else. Download it again."
        )
    return dict(content)


def _rows(table: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if not set(columns) <= set(reader.fieldnames or ()):
            raise DatasetError(f"{table}: needs the columns {', '.join(columns)}; found {', '.join(reader.fieldnames or ()) or 'none'}.")
        yield from reader
