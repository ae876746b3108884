"""What one image file is, for the audit: whether it can be used, what is unusual about it, and what it looks like from afar."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iadr1.images import DEEP, frames_of, in_rgb
from iadr1.look_alikes import perceptual_hash

if TYPE_CHECKING:
    from PIL import Image

UPRIGHT = 1  # the EXIF orientation of a picture that needs no turning


@dataclass(frozen=True, slots=True)
class Facts:
    """A file: its fault as (kind, reason) where it has one; else upright size, traits, and its hashes: of its bytes, and of what it shows.

    `values` are the distinct levels of a mask, at most four of them; `marked` is the share of its pixels that is not zero.
    """

    fault: tuple[str, str] | None = None
    size: tuple[int, int] = (0, 0)
    traits: tuple[str, ...] = ()
    sha256: str = ""
    perceptual: bytes = b""
    blank: bool = False
    values: tuple[int, ...] = ()
    marked: float = 0.0


def facts_of(path: Path, *, mask: bool = False) -> Facts:
    """Read a file whole, unless its header says that decoding it would fill the memory; never raises for what a file holds."""
    from PIL import Image

    try:
        content = path.read_bytes()
        if not content:
            return Facts(("empty-file", "0 bytes"))
        with Image.open(path) as image:
            frames = frames_of(image)
            if frames > 1:
                return Facts(("animated", f"holds {frames} pictures"))
            return _decoded(image, hashlib.sha256(content).hexdigest(), mask=mask)
    except Image.DecompressionBombError as error:
        return Facts(("too-large", f"not decoded: {error}"))
    except (OSError, SyntaxError, ValueError) as error:
        cut = "truncated" in str(error)
        return Facts(("truncated" if cut else "corrupt", " ".join(str(error).split())))


def _decoded(image: "Image.Image", sha256: str, *, mask: bool) -> Facts:
    import numpy as np
    from PIL import ImageOps

    traits = tuple(_traits(image))
    if mask:
        levels = np.asarray(image.convert("RGB") if image.mode in ("RGBA", "LA", "CMYK", "PA") else image)
        levels = levels if levels.ndim == 2 else levels.max(axis=2)
        values = tuple(int(value) for value in np.unique(levels)[:4])
        return Facts(size=image.size, traits=traits, sha256=sha256, values=values, marked=float((levels != 0).mean()))
    upright = in_rgb(ImageOps.exif_transpose(image))
    darkest, brightest = zip(*upright.getextrema(), strict=True)
    seen = perceptual_hash(np.asarray(upright))
    return Facts(size=upright.size, traits=traits, sha256=sha256, perceptual=seen, blank=darkest == brightest)


def _traits(image: "Image.Image") -> "list[str]":
    from PIL import ExifTags

    turned = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT) != UPRIGHT
    found = {
        "16-bit": image.mode in DEEP,
        "cmyk": image.mode == "CMYK",
        "alpha": image.has_transparency_data,
        "palette": image.mode in ("P", "PA"),
        "exif-rotated": turned,
    }
    return [trait for trait, there in found.items() if there]
