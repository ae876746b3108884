"""Pictures for a teacher and a reviewer: an image of bounded size, and one with its defect outlined."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from iadr1.errors import DatasetError
from iadr1.masks import read_image, read_mask

if TYPE_CHECKING:
    import numpy as np

OUTLINE = (255, 0, 255)  # magenta: the colour that industrial pictures have least of
VERSION = "outline-1"  # part of a request's hash


def picture(path: str | Path, *, longest: int) -> bytes:
    """An image as PNG, its longer side at most `longest` pixels."""
    return _png(read_image(path), longest=longest)


def highlighted(image: str | Path, mask: str | Path, *, longest: int) -> bytes:
    """An image as PNG with the outline of its mask drawn in, one hundredth of the shorter side wide; raises DatasetError for unlike sizes."""
    from scipy.ndimage import binary_dilation

    pixels, marked = read_image(image).copy(), read_mask(mask)
    if marked.shape != pixels.shape[:2]:
        raise DatasetError(f"{mask}: its size is not that of its image {image}; both must have the same size.")
    width = max(1, min(marked.shape) // 100)
    pixels[binary_dilation(marked, iterations=2 * width) & ~binary_dilation(marked, iterations=width)] = OUTLINE
    return _png(pixels, longest=longest)


def _png(pixels: "np.ndarray", *, longest: int) -> bytes:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
