"""Thumbnails of images and outlines of masks, small enough that thousands of them fit on one page."""

import base64
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from iadr1.errors import DatasetError
from iadr1.images import decoding, in_rgb, open_image
from iadr1.masks import read_mask
from iadr1.samples import Sample

if TYPE_CHECKING:
    from PIL import Image

SIDE = 176  # pixels of the longer side; smaller images stay as they are
LIMIT = 4096  # bytes of one thumbnail
QUALITIES = (82, 70, 55, 40, 25, 10)  # of WebP, tried until the limit holds
NEAR = 0.2  # a mask of a smaller share of the image's longer side is also shown from near
AROUND = 3  # sides of the mask that are then seen

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as the page shows it: data URLs of thumbnail and mask outline (None without a mask), and their size in pixels."""

    url: str
    outline: str | None
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Views:
    """A whole image, and its defect from near where it is too small to be seen in the thumbnail."""

    whole: Picture
    near: Picture | None = None


def pictures(samples: Sequence[Sample]) -> Mapping[str, Views]:
    """The pictures of samples by id; one that cannot be read is left out."""
    with ThreadPoolExecutor() as pool:
        found = zip(samples, pool.map(_views, samples), strict=True)
        return {sample.id: views for sample, views in found if views is not None}


def thumbnail(image: "Image.Image") -> bytes:
    """The WebP bytes of an RGB image of at most SIDE pixels, in the best quality that keeps to LIMIT, or else smaller."""
    while True:
        for quality in QUALITIES:
            buffer = BytesIO()
            image.save(buffer, "WEBP", quality=quality, method=4)
            if buffer.tell() <= LIMIT:
                return buffer.getvalue()
        image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)))


def _views(sample: Sample) -> Views | None:
    try:
        mask = _mask(sample.mask) if sample.mask else None
        box = _around(mask) if mask else None
        if mask is None or box is None:
            return Views(_picture(_small(sample.images[-1]), mask))
        image = open_image(sample.images[-1])
        return Views(_picture(image, mask), _picture(image.crop(box), mask.crop(box)))
    except DatasetError:
        return None


def _small(path: str) -> "Image.Image":
    """An image, decoded at about the size that is shown when it is a JPEG."""
    from PIL import ImageOps

    with decoding(path) as image:
        image.draft(None, (2 * SIDE, 2 * SIDE))
        return in_rgb(ImageOps.exif_transpose(image))


def _mask(path: str) -> "Image.Image":
    from PIL import Image

    return Image.fromarray(read_mask(path)).convert("L")


def _around(mask: "Image.Image") -> Box | None:
    """The square around a mask that is small in a large image."""
    box = mask.getbbox()
    if box is None:
        return None
    left, top, right, bottom = box
    size, longer = max(right - left, bottom - top), max(mask.size)
    if longer <= SIDE or size > NEAR * longer:
        return None
    side = min(max(AROUND * size, SIDE // 2), *mask.size)
    x, y = (
        min(max(0, (low + high - side) // 2), whole - side) for low, high, whole in ((left, right, mask.width), (top, bottom, mask.height))
    )
    return x, y, x + side, y + side


def _picture(image: "Image.Image", mask: "Image.Image | None") -> Picture:
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    line = _outline(mask, small.size) if mask else None
    return Picture(_url(thumbnail(small), "webp"), _url(line, "png") if line else None, *small.size)


def _outline(full: "Image.Image", size: tuple[int, int]) -> bytes | None:
    """A PNG of one bit around the defect, so that the defect itself can be seen; None when the mask marks nothing."""
    from PIL import Image, ImageChops, ImageFilter

    # A box filter keeps a defect of one pixel, which the nearest pixel would miss.
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
