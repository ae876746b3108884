"""One reader a layout: its docstring shows where the layout has its files."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from iadr1.datasets.folders import (
    NORMAL,
    categories,
    class_folders,
    folders_in,
    grouped,
    images_in,
    inside,
    json_of,
    masks_in,
    rows,
    sample_of,
    words_of,
)  # fmt: skip
from iadr1.errors import DatasetError
from iadr1.samples import Sample


def real_iad(root: Path, dataset: str) -> list[Sample]:
    """realiad_jsons/CATEGORY.json and CATEGORY/{OK,NG/…}/S0001/IMAGE"""
    # A defective part also has views that do not show the defect: they carry no mask and are neither normal nor defective.
    return [sample for sample in _real_iad_views(root, dataset) if sample.mask or not sample.anomalous]


def hidden_parts(root: Path, dataset: str) -> list[str]:
    """The defective parts of Real-IAD whose defect no view shows."""
    views = [sample for sample in _real_iad_views(root, dataset) if sample.anomalous]
    shown = {sample.physical for sample in views if sample.mask}
    return sorted({str(sample.physical) for sample in views} - shown)


def _real_iad_views(root: Path, dataset: str) -> Iterator[Sample]:
    for file in sorted((root / "realiad_jsons").rglob("*.json")):
        content = _json(file)
        folder = _real_iad_images(root, content["meta"].get("prefix", f"{file.stem}/"))
        for split in ("train", "test"):
            for entry in content[split]:
                yield _real_iad_sample(entry, folder, dataset, split, content["meta"]["normal_class"])


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
    marks = inside(folder, mask) if anomalous and mask else None
    sample = sample_of(dataset, category, split, kind, inside(folder, image), anomalous=anomalous, mask=marks)
    return replace(sample, physical=f"{dataset}/{category}/{Path(image).parent.as_posix()}")


def mvtec(root: Path, dataset: str) -> list[Sample]:
    """CATEGORY/{train/good, test/{good,TYPE}, ground_truth/TYPE/NAME_mask.png}, also train_defect/TYPE, train_defect_ground_truth/TYPE"""
    samples = [sample for category in categories(root, ("train", "test")) for sample in _mvtec_category(category, dataset, category.name)]
    return grouped(samples, root, dataset)


def _mvtec_category(folder: Path, dataset: str, category: str) -> Iterator[Sample]:
    for images, masks in (("train", "ground_truth"), ("test", "ground_truth"), ("train_defect", "train_defect_ground_truth")):
        yield from class_folders(folder / images, folder / masks, dataset, category, images.split("_")[0])


def ds_mvtec(root: Path, dataset: str) -> list[Sample]:
    """CATEGORY/{image/good, image/TYPE, mask/TYPE}; normal images for references from train/good here or in MVTec-AD beside it"""
    samples: list[Sample] = []
    for category in categories(root, ("image",)):
        samples += class_folders(category / "image", category / "mask", dataset, category.name, "test")
        for train in (category / "train", root.parent / "MVTec-AD" / category.name / "train"):
            if train.is_dir():
                samples += class_folders(train, category / "mask", dataset, category.name, "train")
                break
    return samples


def visa(root: Path, dataset: str) -> list[Sample]:
    """split_csv/1cls.csv, CATEGORY/Data/{Images/{Normal,Anomaly},Masks/Anomaly}; or MVTec-like CATEGORY/{train,test,ground_truth}"""
    table = root / "split_csv" / "1cls.csv"
    if not table.is_file():
        return mvtec(root, dataset)
    types = {path: word for file in sorted(root.glob("*/image_anno.csv")) for path, word in _visa_types(root, file)}
    return [
        sample_of(
            dataset, row["object"], row["split"], row["label"], inside(root, row["image"]), anomalous=row["label"] != "normal",
            mask=inside(root, row["mask"]) if row["mask"] else None, word=types.get(row["image"], ""),
        )
        for row in rows(table, ("object", "split", "label", "image", "mask"))
    ]  # fmt: skip


def _visa_types(root: Path, file: Path) -> Iterator[tuple[str, str]]:
    for row in rows(file, ("image", "label")):
        if "," not in row["label"]:  # an image with defects of several types has no one type
            yield row["image"], row["label"]


def dagm(root: Path, dataset: str) -> list[Sample]:
    """ClassN/{Train,Test}/{IMAGE.PNG, Label/Labels.txt, Label/NAME_label.PNG}; or re-arranged ClassN/{good,defect}"""
    samples: list[Sample] = []
    for category in categories(root, ("Train", "Test", NORMAL)):
        nested = category / category.name
        base = nested if (nested / "Test").is_dir() else category
        if (base / NORMAL).is_dir():
            samples += class_folders(base, base / "mask", dataset, category.name, "test", only=(NORMAL, "defect"))
        for split in ("Train", "Test"):
            samples += _dagm_split(base / split, dataset, category.name, split.lower())
    return samples


def _dagm_split(folder: Path, dataset: str, category: str, split: str) -> Iterator[Sample]:
    masks = masks_in(folder / "Label", "_label")
    defective = _dagm_defective(folder / "Label" / "Labels.txt", masks)
    for image in images_in(folder):
        kind = "defect" if image.stem in defective else NORMAL
        yield sample_of(dataset, category, split, kind, image, anomalous=image.stem in defective, mask=masks.get(image.stem), word="")


def _dagm_defective(table: Path, masks: dict[str, Path]) -> set[str]:
    """The names that Labels.txt (lines of number, 0 or 1, image, 0, mask or 0) marks as defective; without it, those that have a mask."""
    if not table.is_file():
        return set(masks)
    return {Path(line[2]).stem for line in words_of(table) if len(line) >= 3 and line[1] == "1"}


def sdd(root: Path, dataset: str) -> list[Sample]:
    """kosNN/{PartM.jpg, PartM_label.bmp}; or re-arranged test/{good,defect}"""
    if (root / "test").is_dir():
        return list(_mvtec_category(root, dataset, "commutator"))
    made = ((item, sample) for item in folders_in(root) for sample in _labelled(item, "_label", dataset, "commutator", "test"))
    return [
        replace(sample, id=_prefixed(sample.id, item.name), physical=f"{dataset}/{item.name}")
        for item, sample in made
    ]  # fmt: skip


def _prefixed(sample_id: str, item: str) -> str:
    above, _, name = sample_id.rpartition("/")
    return f"{above}/{item}_{name}"


def sdd2(root: Path, dataset: str) -> list[Sample]:
    """{train,test}/{NAME.png, NAME_GT.png}"""
    return [sample for split in ("train", "test") for sample in _labelled(root / split, "_GT", dataset, "surface", split)]


def _labelled(folder: Path, ending: str, dataset: str, category: str, split: str) -> Iterator[Sample]:
    """The samples of a folder where every image has a mask, and an empty one says «no defect»: masks, not images, must be opened."""
    from iadr1.masks import read_mask

    masks = {path.stem.removesuffix(ending): path for path in images_in(folder) if path.stem.endswith(ending)}
    images = [path for path in images_in(folder) if path.stem in masks]
    with ThreadPoolExecutor() as pool:
        marked = pool.map(lambda image: bool(read_mask(masks[image.stem]).any()), images)
    for image, anomalous in zip(images, marked, strict=True):
        kind = "defect" if anomalous else NORMAL
        yield sample_of(dataset, category, split, kind, image, anomalous=anomalous, mask=masks[image.stem], word="")


def btad(root: Path, dataset: str) -> list[Sample]:
    """NN/{train/ok, test/{ok,ko}, ground_truth/ko/NAME.png}"""
    return [
        sample
        for category in categories(root, ("train", "test"))
        for split in ("train", "test")
        for sample in class_folders(category / split, category / "ground_truth", dataset, category.name, split, normal="ok")
    ]


def _json(file: Path) -> dict[str, Any]:
    content = json_of(file)
    if not isinstance(content, dict) or not {"meta", "train", "test"} <= content.keys() or "normal_class" not in content["meta"]:
        raise DatasetError(
            f"{file}: Real-IAD's JSON has meta (with normal_class), train and test; found something else. Download it again."
        )
    return content
