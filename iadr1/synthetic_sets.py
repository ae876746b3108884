"""Writes the made benchmark in the folder layouts of the public data sets: a Real-IAD-shaped training source and six test sets of other products.

`plan(...)` lists every photograph, `write_photo` draws one (they are independent: draw them on all cores), `write_annotations` adds the JSON and CSV files.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from iadr1 import drawing, products
from iadr1.synthetic import DEFECTS, Product, scene, with_defect

VISIBILITY = "visibility.json"


@dataclass(frozen=True)
class Photo:
    """One photograph to draw: where it and its mask go, of what, with which fine defect type (None: normal), from which seed."""

    dataset: str
    category: str
    image: str
    mask: str | None
    product: Product
    kind: str | None
    seed: tuple[int, ...]


# dataset -> (products, path of a photograph, path of its mask or None) for (category, number within its class, defect type or None, split)
Namer = Callable[[str, int, str | None], tuple[str, str | None]]


def _real_iad(category: str, number: int, kind: str | None) -> tuple[str, str | None]:
    folder = f"{category}/{'OK' if kind is None else 'NG/' + _folder(kind)}/S{number:04d}"
    return f"{folder}/{number:04d}_C1.png", kind and f"{folder}/{number:04d}_C1_mask.png"


def _mvtec(category: str, number: int, kind: str | None) -> tuple[str, str | None]:
    return f"{category}/image/{_folder(kind)}/{number:03d}.png", kind and f"{category}/mask/{_folder(kind)}/{number:03d}.png"


def _visa(category: str, number: int, kind: str | None) -> tuple[str, str | None]:
    return (
        f"{category}/Data/Images/{'Anomaly' if kind else 'Normal'}/{number:04d}.JPG",
        kind and f"{category}/Data/Masks/Anomaly/{number:04d}.png",
    )


def _mpdd(category: str, number: int, kind: str | None) -> tuple[str, str | None]:
    return f"{category}/test/{_folder(kind)}/{number:03d}.png", kind and f"{category}/ground_truth/{_folder(kind)}/{number:03d}_mask.png"


def _dagm(category: str, number: int, kind: str | None) -> tuple[str, str | None]:
    number = 2 * number + bool(kind)  # defective and normal images share one folder, so their numbers interleave
    return f"{category}/Test/{number:04d}.PNG", kind and f"{category}/Test/Label/{number:04d}_label.PNG"


def _dtd(category: str, number: int, kind: str | None) -> tuple[str, str | None]:
    return f"{category}/test/{'bad' if kind else 'good'}/{number:03d}.png", kind and f"{category}/ground_truth/bad/{number:03d}_mask.png"


def _sdd(category: str, number: int, kind: str | None) -> tuple[str, str | None]:
    number = 2 * number + bool(kind)
    stem = f"{category}{number // 8:02d}/Part{number % 8}"
    return f"{stem}.jpg", f"{stem}_label.bmp"


def _folder(kind: str | None) -> str:
    return "good" if kind is None else kind.replace(" ", "_")


TRAIN = "made"
SETS: dict[str, tuple[dict[str, Product], Namer]] = {
    TRAIN: (products.TRAIN, _real_iad),
    "mvtec": (products.MVTEC, _mvtec),
    "visa": (products.VISA, _visa),
    "mpdd": (products.MPDD, _mpdd),
    "dagm": (products.DAGM, _dagm),
    "dtd": (products.DTD, _dtd),
    "sdd": (products.SDD, _sdd),
}
PARTS_ONLY = {"notch", "bend"}  # need an outline, or a pattern, to be seen on


def plan(*, train_images: int, test_images: int, seed: int) -> list[Photo]:
    """Every photograph of the benchmark, half of each data set with a defect."""
    return [photo for name in SETS for photo in _set(name, train_images if name == TRAIN else test_images, seed)]


def _set(name: str, images: int, seed: int) -> list[Photo]:
    table, namer = SETS[name]
    rng = np.random.default_rng((seed, list(SETS).index(name)))
    photos, numbers = [], dict.fromkeys(table, 0)
    for index in range(images):
        category = list(table)[(index // 2) % len(table)]
        kind = _kind(table[category], rng) if index % 2 else None
        number = numbers[category] = numbers[category] + (index % 2 == 0)
        image, mask = namer(category, number, kind)
        photo = Photo(
            name, category, f"{name}/{image}", mask and f"{name}/{mask}", table[category], kind, (seed, list(SETS).index(name), index)
        )
        photos.append(photo)
    return photos


def _kind(product: Product, rng: np.random.Generator) -> str:
    """A fine type, the coarse types equally likely, that this product can show."""
    able = [kind for kind in DEFECTS if product.parts or kind not in PARTS_ONLY]
    coarse = str(rng.choice(sorted({DEFECTS[kind][0] for kind in able})))
    return str(rng.choice([kind for kind in able if DEFECTS[kind][0] == coarse]))


def write_photo(root: Path, photo: Photo) -> float | None:
    """Draw one photograph (and its mask) below `root`; returns the visibility of its defect."""
    rng = np.random.default_rng(photo.seed)
    base = scene(photo.product, rng)
    image, mask, visibility = base.image, np.zeros(base.product.shape, bool), None
    if photo.kind is not None:
        defect = with_defect(base, photo.kind, rng)
        image, mask, visibility = defect.image, defect.mask, defect.visibility
    _write_image(root / photo.image, drawing.to_bytes(drawing.lit(image, rng)))
    if photo.mask is not None:
        _write_image(root / photo.mask, mask.astype(np.uint8) * 255)
    return visibility


def _write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = io.BytesIO()
    lossy = {"quality": 95, "subsampling": 0} if path.suffix.lower() == ".jpg" else {}
    Image.fromarray(pixels).save(encoded, {".jpg": "JPEG", ".bmp": "BMP"}.get(path.suffix.lower(), "PNG"), **lossy)
    path.write_bytes(encoded.getvalue())


def write_annotations(root: Path, photos: Sequence[Photo], visibilities: Sequence[float | None]) -> None:
    """The JSON, CSV and label files of the layouts that have them, and the visibility of every defect."""
    seen = {photo.image: value for photo, value in zip(photos, visibilities, strict=True) if value is not None}
    _write_json(root / VISIBILITY, seen)
    for category in products.TRAIN:
        _write_json(root / TRAIN / "realiad_jsons" / f"{category}.json", _real_iad_json(category, photos))
    _write_visa_csv(root / "visa", [photo for photo in photos if photo.dataset == "visa"])
    for category in products.DAGM:
        _write_dagm_labels(
            root / "dagm" / category / "Test" / "Label" / "Labels.txt",
            [photo for photo in photos if photo.dataset == "dagm" and photo.category == category],
        )


def _real_iad_json(category: str, photos: Sequence[Photo]) -> dict[str, object]:
    prefix = f"{TRAIN}/{category}/"
    rows = [
        {
            "category": category,
            "anomaly_class": photo.kind or "OK",
            "image_path": photo.image.removeprefix(prefix),
            "mask_path": photo.mask and photo.mask.removeprefix(prefix),
        }
        for photo in photos
        if photo.dataset == TRAIN and photo.category == category
    ]
    normal = [row for row in rows if row["mask_path"] is None]
    half = set(map(str, [row["image_path"] for row in normal[::2]]))
    train = [row for row in normal if row["image_path"] in half]
    return {
        "meta": {"normal_class": "OK", "prefix": f"{category}/"},
        "train": train,
        "test": [row for row in rows if row["image_path"] not in half],
    }


def _write_visa_csv(root: Path, photos: Sequence[Photo]) -> None:
    path = root / "split_csv" / "1cls.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["object", "split", "label", "image", "mask"])
        for photo in photos:
            mask = photo.mask.removeprefix("visa/") if photo.mask else ""
            writer.writerow([photo.category, "test", "anomaly" if photo.kind else "normal", photo.image.removeprefix("visa/"), mask])


def _write_dagm_labels(path: Path, photos: Sequence[Photo]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ["1"]
    for number, photo in enumerate(photos, 1):
        rows.append(f"{number}\t{int(photo.kind is not None)}\t{Path(photo.image).name}\t0\t{Path(photo.mask).name if photo.mask else 0}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
