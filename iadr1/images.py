"""Images as every stage shows them to a model: decoded, turned upright, in RGB."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from iadr1.errors import DatasetError
from iadr1.samples import Sample

SHOWN = 5


def open_image(path: str | Path) -> Any:
    """The PIL image of a file; raises DatasetError when it cannot be read."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path}: the image cannot be read ({error}). Restore or remove it, then run `dvc repro prepare`.") from error


def require_readable(samples: Iterable[Sample], *, shots: int = 0) -> None:
    """Raise DatasetError that names the images (of samples and of their first `shots` references) that cannot be read."""
    paths = sorted({path for sample in samples for path in (*sample.images, *sample.references[:shots])})
    with ThreadPoolExecutor() as pool:
        broken = [path for path, fault in zip(paths, pool.map(_fault, paths), strict=True) if fault]
    if broken:
        shown = ", ".join(broken[:SHOWN]) + (f" and {len(broken) - SHOWN} more" if len(broken) > SHOWN else "")
        raise DatasetError(
            f"{len(broken)} of {len(paths)} images cannot be read: {shown}. Restore or remove them, then run `dvc repro prepare`."
        )


def _fault(path: str) -> DatasetError | None:
    try:
        open_image(path)
    except DatasetError as error:
        return error
    return None
