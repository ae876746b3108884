"""Data sets annotated with boxes or polygons (COCO, YOLO): listed as they are, their masks drawn once with `iadr1 data masks FOLDER`.

Drawn masks lie in FOLDER/masks, in the place that the image has in FOLDER.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iadr1.datasets.folders import NORMAL, folders_in, images_in, inside, json_of, sample_of, words_of
from iadr1.errors import DatasetError
from iadr1.samples import Sample

if TYPE_CHECKING:
    import numpy as np

MASKS = "masks"
MIXED = "mixed"  # the kind of an image with defects of several kinds

Polygon = Sequence[float]  # x, y, x, y, … in pixels; in shares of the image's sides where `relative`


@dataclass(frozen=True, slots=True)
class Marked:
    """An image and what marks its defects: polygons, and run lengths by column as COCO has them."""

    image: Path
    split: str
    kinds: tuple[str, ...]
    polygons: tuple[Polygon, ...] = ()
    runs: tuple[Mapping[str, Any], ...] = ()
    relative: bool = False


def coco(root: Path, dataset: str) -> list[Sample]:
    """annotations/NAME.json or SPLIT/_annotations.coco.json with images, annotations and categories; an image without one is normal"""
    return [_sample(marked, root, dataset) for marked in _coco(root)]


def yolo(root: Path, dataset: str) -> list[Sample]:
    """images/SPLIT/IMAGE with labels/SPLIT/NAME.txt, or SPLIT/images with SPLIT/labels, names in data.yaml; no lines: normal"""
    return [_sample(marked, root, dataset) for marked in _yolo(root)]


def draw_masks(root: Path) -> int:
    """Draw the mask of every image with a defect below `root`, in COCO's or YOLO's form; returns how many. Raises DatasetError."""
    from PIL import Image

    marked = [item for item in (*_coco(root), *_yolo(root)) if item.kinds]
    if not marked:
        raise DatasetError(f"{root}: no annotated images ({coco.__doc__}; {yolo.__doc__}).")
    for item in marked:
        mask = _mask_of(item.image, root)
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn(item)).save(mask)
    return len(marked)


def drawn(item: Marked) -> "np.ndarray":
    """The mask [H, W] of 0 and 255; raises DatasetError for an image that cannot be read and for shapes that mark nothing of it."""
    import numpy as np
    from PIL import Image, ImageDraw

    from iadr1.images import size_of

    width, height = size_of(item.image)
    picture = Image.new("L", (width, height))
    pen = ImageDraw.Draw(picture)
    for polygon in item.polygons:
        points = [(x * width, y * height) if item.relative else (x, y) for x, y in zip(polygon[::2], polygon[1::2], strict=True)]
        # A shape covers the pixels whose centres it holds; the pen also colours those under its outline.
        pen.polygon([(x - 0.5, y - 0.5) for x, y in points], fill=255)
    mask = np.asarray(picture)
    for runs in item.runs:
        mask = np.maximum(mask, _run_mask(runs, (height, width), item.image))
    if not mask.any():
        raise DatasetError(f"{item.image}: its annotation marks nothing of its {width}x{height} pixels. Correct or remove the annotation.")
    return mask


def _sample(item: Marked, root: Path, dataset: str) -> Sample:
    kind = NORMAL if not item.kinds else item.kinds[0] if len(set(item.kinds)) == 1 else MIXED
    mask = _mask_of(item.image, root)
    return sample_of(dataset, dataset, item.split, kind.replace("/", "_"), item.image, anomalous=bool(item.kinds), mask=mask)


def _mask_of(image: Path, root: Path) -> Path:
    return (root / MASKS / image.relative_to(root)).with_suffix(".png")


def _split(name: str) -> str:
    return "train" if "train" in name.lower() else "test"


def _coco(root: Path) -> Iterator[Marked]:
    for file in sorted((*(root / "annotations").glob("*.json"), *root.glob("*/_annotations.coco.json"), *root.glob("*.coco.json"))):
        content = json_of(file)
        if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
            raise DatasetError(f"{file}: COCO's JSON has images, annotations and categories; found something else. Export it again.")
        try:
            yield from _coco_images(content, file, root)
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{file}: an entry of COCO's JSON lacks or has a wrong {error}. Export it again.") from error


def _coco_images(content: Mapping[str, Any], file: Path, root: Path) -> Iterator[Marked]:
    names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
    found = defaultdict[Any, list[Mapping[str, Any]]](list)
    for entry in content["annotations"]:
        found[entry["image_id"]].append(entry)
    split = _split(file.parent.name if file.name.startswith("_") else file.stem)
    folder = _coco_folder(content["images"], file, root)
    for image in content["images"]:
        entries = found[image["id"]]
        shapes = [entry.get("segmentation") or [_box(*entry["bbox"])] for entry in entries]
        yield Marked(
            image=inside(folder, image["file_name"]),
            split=split,
            kinds=tuple(names[entry["category_id"]] for entry in entries),
            polygons=tuple(polygon for shape in shapes if not isinstance(shape, dict) for polygon in shape),
            runs=tuple(shape for shape in shapes if isinstance(shape, dict)),
        )


def _coco_folder(images: Sequence[Mapping[str, Any]], file: Path, root: Path) -> Path:
    """Where the images lie: beside the JSON, in a folder named as it, or in images/."""
    named = file.stem.removeprefix("instances_")
    places = [file.parent, root / named, root / "images" / named, root / "images", root]
    return next((place for place in places if images and inside(place, images[0]["file_name"]).is_file()), places[-1])


def _yolo(root: Path) -> Iterator[Marked]:
    names = _yolo_names(root / "data.yaml")
    for images, labels in _yolo_folders(root):
        for image in images_in(images):
            table = labels / f"{image.stem}.txt"
            lines = words_of(table) if table.is_file() else []
            try:
                shapes = [(int(line[0]), _yolo_polygon([float(number) for number in line[1:]])) for line in lines if line]
            except ValueError as error:
                raise DatasetError(
                    f"{table}: a line is a class and 4 numbers, or 6 or more in pairs ({error}). Export it again."
                ) from error
            kinds = tuple(names.get(kind, str(kind)) for kind, _ in shapes)
            split = _split(images.parent.name if images.name == "images" else images.name)
            yield Marked(image, split, kinds, tuple(polygon for _, polygon in shapes), relative=True)


def _yolo_folders(root: Path) -> Iterator[tuple[Path, Path]]:
    for images in (root / "images", *folders_in(root / "images")):
        yield images, root / "labels" / images.relative_to(root / "images")
    for split in folders_in(root):
        if (split / "labels").is_dir():
            yield split / "images", split / "labels"


def _yolo_names(file: Path) -> dict[int, str]:
    import yaml

    try:
        names = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("names", {}) if file.is_file() else {}
        return {int(number): str(name) for number, name in (names.items() if isinstance(names, dict) else enumerate(names))}
    except (yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise DatasetError(f"{file}: not YOLO's YAML with names ({' '.join(str(error).split())}). Export it again.") from error


def _yolo_polygon(numbers: Sequence[float]) -> Polygon:
    if len(numbers) == 4:
        x, y, width, height = numbers
        return _box(x - width / 2, y - height / 2, width, height)
    if len(numbers) < 6 or len(numbers) % 2:
        raise ValueError(f"found {len(numbers)}")
    return numbers


def _box(x: float, y: float, width: float, height: float) -> Polygon:
    return (x, y, x + width, y, x + width, y + height, x, y + height)


def _run_mask(runs: Mapping[str, Any], shape: tuple[int, int], image: Path) -> "np.ndarray":
    import numpy as np

    counts = run_lengths(runs["counts"]) if isinstance(runs["counts"], str) else list(runs["counts"])
    if sum(counts) != shape[0] * shape[1] or tuple(runs["size"]) != shape:
        raise DatasetError(f"{image}: has {shape[1]}x{shape[0]} pixels, its mask in COCO's JSON has others. Export the annotation again.")
    values = np.repeat(np.arange(len(counts)) % 2 * 255, counts)
    return values.astype(np.uint8).reshape(shape, order="F")


def run_lengths(text: str) -> list[int]:
    """COCO's compressed run lengths: 5 bits a character from the lowest, the sixth says that more follow; from the third on, differences."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts
