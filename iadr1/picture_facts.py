"""What one image file is, for the audit: whether it can be used, what is unusual about it, and what it looks like from afar."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iadr1.images import DEEP, frames_of, in_rgb

if TYPE_CHECKING:
    from PIL import Image

SIDE = 32  # pixels a side of the small grey picture by which near duplicates are found
ENOUGH = 8  # from this many pictures on, what they share (the product, its place) is taken off before they are compared
LIKENESS, LIKENESS_OF_FEW = 0.98, 0.999  # from which on two pictures count as one; fewer of one product all look alike
FLAT = 0.5  # levels: a picture that differs less from what is shared has nothing to compare
UPRIGHT = 1  # the EXIF orientation of a picture that needs no turning


@dataclass(frozen=True, slots=True)
class Facts:
    """A file: its fault as (kind, reason) where it has one; else upright size, traits, hash, and its pixels in small.

    `values` are the distinct levels of a mask, at most four of them; `marked` is the share of its pixels that is not zero.
    """

    fault: tuple[str, str] | None = None
    size: tuple[int, int] = (0, 0)
    traits: tuple[str, ...] = ()
    sha256: str = ""
    small: bytes = b""
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
    from PIL import Image, ImageOps

    traits = tuple(_traits(image))
    if mask:
        levels = np.asarray(image.convert("RGB") if image.mode in ("RGBA", "LA", "CMYK", "PA") else image)
        levels = levels if levels.ndim == 2 else levels.max(axis=2)
        values = tuple(int(value) for value in np.unique(levels)[:4])
        return Facts(size=image.size, traits=traits, sha256=sha256, values=values, marked=float((levels != 0).mean()))
    upright = in_rgb(ImageOps.exif_transpose(image))
    darkest, brightest = zip(*upright.getextrema(), strict=True)
    small = upright.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()
    return Facts(size=upright.size, traits=traits, sha256=sha256, small=small, blank=darkest == brightest)


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


def alike(ones: list[bytes], others: list[bytes]) -> list[tuple[int, int, float]]:
    """Pairs (index in `ones`, index in `others`, likeness up to 1) of small pictures of one product that look the same from afar.

    Parts photographed at one place all look alike; what two pictures have in common beyond that tells that they are of one photograph.
    """
    import numpy as np

    if not ones or not others:
        return []
    pictures = np.frombuffer(b"".join([*ones, *others]), np.uint8).reshape(-1, SIDE * SIDE).astype(np.float32)
    pictures -= pictures.mean(axis=1, keepdims=True)
    least = LIKENESS if len(pictures) >= ENOUGH else LIKENESS_OF_FEW
    if len(pictures) >= ENOUGH:
        pictures -= pictures.mean(axis=0)
    lengths = np.linalg.norm(pictures, axis=1, keepdims=True)
    pictures = np.where(lengths > FLAT * SIDE, pictures / np.maximum(lengths, 1e-6), 0)
    first, second = pictures[: len(ones)], pictures[len(ones) :]
    found = []
    for start in range(0, len(first), 1024):
        likeness = first[start : start + 1024] @ second.T
        rows, columns = np.nonzero(likeness >= least)
        found += [(start + int(row), int(column), float(likeness[row, column])) for row, column in zip(rows, columns, strict=True)]
    return found
