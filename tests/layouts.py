"""Small data sets in the folder layouts of the public ones, for tests."""

import csv
import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from iadr1.datasets.shapes import draw_masks


def picture(path: Path, *, grey: int | None = None, side: int = 24) -> Path:
    """Noise that no two paths share, or one grey everywhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(path.as_posix().encode())).integers(60, 200, (side, side, 3), np.uint8)
    Image.fromarray(noise if grey is None else np.full_like(noise, grey)).save(path)
    return path


def mask(path: Path, *, side: int = 24, empty: bool = False) -> Path:
    """A bright square at the top left on black, or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((side, side), np.uint8)
    if not empty:
        pixels[1:5, 1:5] = 255
    Image.fromarray(pixels).save(path)
    return path


def table(path: Path, columns: list[str], *rows: list[str]) -> None:
    """A CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def real_iad(root: Path) -> None:
    """One normal part, one defective, one whose defect no view shows; two views each."""
    entries = []
    for kind, part, hidden in (("OK", "OK/S0001", False), ("scratch", "NG/scratch/S0002", False), ("scratch", "NG/scratch/S0003", True)):
        for view in ("C1", "C2"):
            image = f"{part}/bolt_{view}.png"
            picture(root / "bolt" / image)
            marked = kind != "OK" and not hidden
            if marked:
                mask(root / "bolt" / f"{part}/bolt_{view}_mask.png")
            path = f"{part}/bolt_{view}_mask.png" if marked else None
            entries.append({"category": "bolt", "anomaly_class": kind, "image_path": image, "mask_path": path})
    content = {"meta": {"normal_class": "OK", "prefix": "bolt/"}, "train": entries[:2], "test": entries[2:]}
    (root / "realiad_jsons").mkdir(parents=True)
    (root / "realiad_jsons" / "bolt.json").write_text(json.dumps(content))


def mvtec(root: Path) -> None:
    """One category, with a word in its name that must mean nothing."""
    for name in ("train/good/000", "train/good/001", "test/good/000", "test/scratch/000", "train_defect/hole/007"):
        picture(root / "goods_bottle" / f"{name}.png")
    mask(root / "goods_bottle/ground_truth/scratch/000_mask.png")
    mask(root / "goods_bottle/train_defect_ground_truth/hole/007_mask.png")


def ds_mvtec(root: Path) -> None:
    """One category of the images that MMAD took from MVTec."""
    for name in ("train/good/000", "image/good/000", "image/scratch/000"):
        picture(root / "bottle" / f"{name}.png")
    mask(root / "bottle/mask/scratch/000.png")


def visa(root: Path) -> None:
    """The original form: a CSV of splits."""
    rows = []
    for split, label, number in (("train", "normal", "0000"), ("test", "normal", "0001"), ("test", "anomaly", "000")):
        image = f"candle/Data/Images/{label.capitalize()}/{number}.JPG"
        picture(root / image)
        marks = f"candle/Data/Masks/Anomaly/{number}.png" if label == "anomaly" else ""
        if marks:
            mask(root / marks)
        rows.append(["candle", split, label, image, marks])
    table(root / "split_csv/1cls.csv", ["object", "split", "label", "image", "mask"], *rows)
    table(root / "candle/image_anno.csv", ["image", "label", "mask"], ["candle/Data/Images/Anomaly/000.JPG", "scratch", ""])


def visa_folders(root: Path) -> None:
    """The form that other projects re-arrange it to."""
    for name in ("train/good/0000", "test/good/0001", "test/bad/000"):
        picture(root / "candle" / f"{name}.JPG")
    mask(root / "candle/ground_truth/bad/000.png")


def dagm(root: Path) -> None:
    """The original form: labels in a text file."""
    for split, normal, defect in (("Train", "0001", "0002"), ("Test", "0003", "0004")):
        folder = root / "Class1" / split
        picture(folder / f"{normal}.PNG")
        picture(folder / f"{defect}.PNG")
        mask(folder / "Label" / f"{defect}_label.PNG")
        (folder / "Label" / "Labels.txt").write_text(f"1\n1\t0\t{normal}.PNG\t0\t0\n2\t1\t{defect}.PNG\t0\t{defect}_label.PNG\n")


def dagm_rearranged(root: Path) -> None:
    """Two folders a class."""
    picture(root / "Class1/good/0001.PNG")
    picture(root / "Class1/defect/0002.PNG")


def dtd(root: Path) -> None:
    """One synthetic texture."""
    for name in ("train/good/000", "test/good/000", "test/bad/001"):
        picture(root / "Woven_001" / f"{name}.png")
    mask(root / "Woven_001/ground_truth/bad/001_mask.png")


def sdd(root: Path) -> None:
    """The original form: a label image for each photograph, empty where it is normal."""
    for item, part, empty in (("kos01", 0, True), ("kos01", 5, False), ("kos02", 0, True)):
        picture(root / item / f"Part{part}.jpg")
        mask(root / item / f"Part{part}_label.bmp", empty=empty)


def sdd_rearranged(root: Path) -> None:
    """Two folders."""
    picture(root / "test/good/kos01_Part0_0.png")
    picture(root / "test/defect/kos01_Part5_0.png")


def sdd2(root: Path) -> None:
    """A label image beside each photograph, empty where it is normal."""
    for name, empty in (("train/10000", True), ("train/10001", False), ("test/20000", True), ("test/20001", False)):
        picture(root / f"{name}.png")
        mask(root / f"{name}_GT.png", empty=empty)


def btad(root: Path) -> None:
    """One product, whose normal images are called ok; its masks end as they like."""
    for name in ("train/ok/0000", "test/ok/0001", "test/ko/0002"):
        picture(root / "01" / f"{name}.bmp")
    mask(root / "01/ground_truth/ko/0002.png")


def coco(root: Path) -> None:
    """Boxes, polygons and run lengths in two files, and an image without any."""
    kinds = [{"id": 7, "name": "scratch"}, {"id": 8, "name": "hole"}]
    shapes = {
        "box": [{"category_id": 7, "bbox": [2, 3, 4, 5], "segmentation": []}],
        "two": [
            {"category_id": 7, "bbox": [0, 0, 1, 1], "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]]},
            {"category_id": 8, "bbox": [10, 10, 4, 4]},
        ],
        "none": [],
        "runs": [{"category_id": 8, "bbox": [0, 0, 1, 1], "segmentation": {"size": [24, 24], "counts": [26, 4, 546]}}],
    }
    for split, names in (("train2017", ("box", "two", "none")), ("val2017", ("runs",))):
        for name in names:
            picture(root / split / f"{name}.jpg")
        images = [{"id": number, "file_name": f"{name}.jpg", "width": 24, "height": 24} for number, name in enumerate(names)]
        entries = [shape | {"image_id": number} for number, name in enumerate(names) for shape in shapes[name]]
        content = {"images": images, "annotations": entries, "categories": kinds}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    draw_masks(root)


def yolo(root: Path) -> None:
    """A box, a polygon, and an image without lines."""
    (root / "labels").mkdir(parents=True)
    for split, name, line in (("train", "a", "1 0.25 0.25 0.25 0.5\n"), ("train", "b", ""), ("val", "c", "0 0.5 0.5 1 0.5 1 1")):
        picture(root / "images" / split / f"{name}.png")
        (root / "labels" / split).mkdir(exist_ok=True)
        (root / "labels" / split / f"{name}.txt").write_text(line)
    (root / "data.yaml").write_text("names: [hole, scratch]\n")
    draw_masks(root)


def yolo_by_split(root: Path) -> None:
    """The splits outside, as some exporters have them; an image without a file of lines is normal."""
    picture(root / "train/images/a.png")
    picture(root / "valid/images/b.png")
    for split in ("train", "valid"):
        (root / split / "labels").mkdir()
    (root / "valid/labels/b.txt").write_text("3 0.5 0.5 0.5 0.5\n")
    draw_masks(root)


def parts(root: Path, *, normal: int = 30, defects: int = 20, tests: int = 4, category: str = "bolt") -> None:
    """A user's own folder: parts of one category in MVTec layout, with defects that may be trained on."""
    for place, kind, count in (
        ("train", "good", normal),
        ("train_defect", "scratch", defects),
        ("test", "good", tests),
        ("test", "hole", tests),
    ):
        for number in range(count):
            picture(root / category / place / kind / f"{number:03}.png")
            if kind != "good":
                truth = "ground_truth" if place == "test" else f"{place}_ground_truth"
                mask(root / category / truth / kind / f"{number:03}_mask.png")
