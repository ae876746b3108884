"""Images as every stage shows them to a model: decoded, turned upright, in RGB of 8 bits."""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from iadr1.errors import DatasetError
from iadr1.samples import Sample

if TYPE_CHECKING:
    from PIL import Image

SHOWN = 5
FULL_SCALES = (255, 1023, 4095, 65535)  # cameras of 8, 10, 12 and 16 bits; a file of 16 bits may come from any of them
DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")


def open_image(path: str | Path) -> "Image.Image":
    """The PIL image of a file; raises DatasetError when it cannot be read, is too large to be one, or holds several pictures."""
    from PIL import ImageOps

    with decoding(path) as image:
        frames = frames_of(image)
        if frames > 1:
            raise DatasetError(f"{path}: holds {frames} pictures, and which of them shows the part is not known. Save that one alone.")
        return in_rgb(ImageOps.exif_transpose(image))


@contextmanager
def decoding(path: str | Path) -> "Iterator[Image.Image]":
    """The opened file; what Pillow raises for broken files of different formats, here or while decoding, becomes a DatasetError."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: no such file. Re-run `dvc repro fetch`.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path}: cannot be read as an image ({error}). Replace or remove it, then run `dvc repro prepare`.") from error


def frames_of(image: "Image.Image") -> int:
    """How many pictures a file holds; the second one of a telephone's JPEG is a preview and does not count."""
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def in_rgb(image: "Image.Image") -> "Image.Image":
    """A picture of any mode in RGB: deep ones brought to 8 bits, transparency laid on white, as every viewer shows it."""
    from PIL import Image

    if image.mode in DEEP:
        return _to_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(image: "Image.Image") -> "Image.Image":
    """Deep values by the smallest full scale that holds them: Pillow alone would cut everything above 255."""
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    most = values.max(initial=0)
    scale = 1 if image.mode == "F" and most <= 1 else next((full for full in FULL_SCALES if most <= full), most)
    return Image.fromarray((values.clip(0) * (255 / scale)).astype(np.uint8))


def size_of(path: str | Path) -> tuple[int, int]:
    """Width and height of a picture as it is shown, upright, from the file's first bytes; raises DatasetError."""
    from PIL import ExifTags

    with decoding(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return (image.height, image.width) if turned else (image.width, image.height)


def content_hash(path: str | Path) -> str:
    """The SHA-256 of a file's bytes in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
