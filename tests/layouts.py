"""Small data sets in the folder layouts of the public ones, for tests."""

import csv
import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


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
