"""Thumbnails of images and outlines of masks, small enough that thousands of them fit on one page."""

import base64
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from iadr1.errors import DatasetError
from iadr1.images import decoding, in_rgb
from iadr1.masks import read_mask
from iadr1.samples import Sample

if TYPE_CHECKING:
    from PIL import Image

SIDE = 176  # pixels of the longer side; smaller images stay as they are
LIMIT = 4096  # bytes of one thumbnail
QUALITIES = (82, 70, 55, 40, 25, 10)  # of WebP, tried until the limit holds


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as the page shows it: data URLs of thumbnail and mask outline (None without a mask), and their size in pixels."""

    url: str
    outline: str | None
    width: int
    height: int


def pictures(samples: Sequence[Sample]) -> Mapping[str, Picture]:
    """The pictures of samples by id; one that cannot be read is left out."""
    with ThreadPoolExecutor() as pool:
        found = zip(samples, pool.map(_picture, samples), strict=True)
        return {sample.id: picture for sample, picture in found if picture is not None}


def thumbnail(image: "Image.Image") -> bytes:
    """The WebP bytes of an RGB image of at most SIDE pixels, in the best quality that keeps to LIMIT, or else smaller."""
    while True:
        for quality in QUALITIES:
            buffer = BytesIO()
            image.save(buffer, "WEBP", quality=quality, method=4)
            if buffer.tell() <= LIMIT:
                return buffer.getvalue()
        image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)))


def _picture(sample: Sample) -> Picture | None:
    try:
        image = _small(sample.images[-1])
        outline = _outline(sample.mask, image.size) if sample.mask else None
    except DatasetError:
        return None
    return Picture(_url(thumbnail(image), "webp"), _url(outline, "png") if outline else None, *image.size)


def _small(path: str) -> "Image.Image":
    from PIL import ImageOps

    with decoding(path) as image:
        image.draft(None, (2 * SIDE, 2 * SIDE))  # a JPEG is decoded at about the size that is shown
        small = in_rgb(ImageOps.exif_transpose(image))
    small.thumbnail((SIDE, SIDE))
    return small


def _outline(path: str, size: tuple[int, int]) -> bytes | None:
    """A PNG of one bit around the defect, so that the defect itself can be seen; None when the mask marks nothing."""
    from PIL import Image, ImageChops, ImageFilter

    # A box filter keeps a defect of one pixel, which the nearest pixel would miss.
    full = Image.fromarray(read_mask(path)).convert("L")
    mask = full.resize(size, Image.Resampling.BOX).point(lambda value: 255 * (value > 0))
    if mask.getbbox() is None:
        return None
    line = ImageChops.subtract(mask.filter(ImageFilter.MaxFilter(5)), mask.filter(ImageFilter.MaxFilter(3)))
    drawn = line.point(lambda value: value > 0).convert("P")
    drawn.putpalette([0, 0, 0, 255, 0, 200])
    buffer = BytesIO()
    drawn.save(buffer, "PNG", bits=1, transparency=0, optimize=True)
    return buffer.getvalue()


def _url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
