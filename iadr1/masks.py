"""What an image and its mask say about a defect: the region in words, its location, how well it can be seen."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from iadr1.errors import DatasetError
from iadr1.images import decoding, open_image
from iadr1.locations import mask_words
from iadr1.samples import Sample

if TYPE_CHECKING:
    import numpy as np

SIZES = ((0.005, "tiny"), (0.02, "small"), (0.08, "medium"), (1.0, "large"))  # upper limits of the area share
SHAPES = ((1.8, "round"), (4.0, "oval"), (float("inf"), "long"))  # upper limits of length / width
FAINT = 6.0  # levels of 255 between region and surroundings that an eye still passes over
RING = 24  # the surroundings reach this part of the shorter image side around a mask
GRID = 64  # cells a side on which the pieces of a mask are told apart
TONES = ("darker", "brighter", "unexpected", "faint")  # unexpected: of another colour, but as bright


@dataclass(frozen=True, slots=True)
class Region:
    """What a mask says about a defect, in words; `several` when it has more than one piece: size and shape are those of the largest."""

    size: str
    tone: str
    shape: str
    several: bool = False


def read_image(path: str | Path) -> "np.ndarray":
    """The pixels of an image file as RGB [H, W, 3] of 0-255, upright, whatever its mode; raises DatasetError when it cannot be decoded."""
    import numpy as np

    return np.asarray(open_image(path))


def read_mask(path: str | Path) -> "np.ndarray":
    """The pixels of a mask file that are not zero (in any band but alpha), as booleans [H, W]; raises DatasetError as `read_image` does."""
    import numpy as np

    with decoding(path) as image:
        values = np.asarray(image.convert("RGB") if image.mode in ("RGBA", "LA", "CMYK", "PA") else image)
    return np.asarray(values if values.ndim == 2 else values.max(axis=2)).astype(bool)


def measured(sample: Sample, *, grid: int) -> "tuple[Sample, Region] | None":
    """The sample with location and visibility from its mask, and the region in words; None when the mask marks nothing."""
    if sample.mask is None:
        raise DatasetError(f"{sample.id}: has no mask to measure.")
    image, mask = read_image(sample.images[-1]), read_mask(sample.mask)
    if mask.shape != image.shape[:2]:
        raise DatasetError(
            f"{sample.mask}: {_size(mask)} pixels, but its image {sample.images[-1]} has {_size(image)}; both must have the same size."
        )
    if not mask.any():
        return None
    difference = contrast(image, mask)
    seen = visibility(mask, difference) if sample.visibility is None else sample.visibility
    return replace(sample, location=mask_words(mask, grid), visibility=seen), region_of(mask, difference)


def region_of(mask: "np.ndarray", difference: "np.ndarray") -> Region:
    """The words for a non-empty boolean mask [H, W] whose inside differs so, by band, from its surroundings."""
    parts = pieces(mask)
    area_share, length = float(parts[0].sum()) / mask.size, elongation(parts[0])
    return Region(
        size=next(word for limit, word in SIZES if area_share <= limit),
        tone=_tone(difference),
        shape=next(word for limit, word in SHAPES if length <= limit),
        several=len(parts) > 1,
    )


def visibility(mask: "np.ndarray", difference: "np.ndarray") -> float:
    """How well a defect can be seen: contrast to its surroundings (0-1) in the band that shows it best, by the root of its area share."""
    return float(abs(difference).max()) / 255 * float(mask.mean()) ** 0.5


def contrast(image: "np.ndarray", mask: "np.ndarray") -> "np.ndarray":
    """By how many levels of 255 each band differs inside the mask from a narrow ring around it; zeros where no ring is left.

    Mean inside, median outside: on a part's edge some of the ring is background, which a mean would mix in.
    """
    import numpy as np

    around = ring(mask)
    return image[mask].mean(axis=0) - np.median(image[around], axis=0) if around.any() else np.zeros(image.shape[2])


def ring(mask: "np.ndarray") -> "np.ndarray":
    """The narrow surroundings of a mask, as booleans [H, W]."""
    return _grown(mask, max(2, min(mask.shape) // RING)) & ~mask


def _size(pixels: "np.ndarray") -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _tone(difference: "np.ndarray") -> str:
    brightness = float(difference.mean())
    if abs(brightness) >= FAINT:
        return "darker" if brightness < 0 else "brighter"
    return "unexpected" if abs(difference).max() >= FAINT else "faint"


def elongation(mask: "np.ndarray") -> float:
    """Length over width of a piece: the root of the ratio of its principal moments."""
    import numpy as np

    ys, xs = np.nonzero(mask)
    if len(xs) < 3:
        return 1.0
    small, large = np.linalg.eigvalsh(np.cov(np.stack([xs, ys])))
    return float(np.sqrt((large + 1 / 12) / (max(small, 0.0) + 1 / 12)))  # 1/12: the variance of one pixel's own width


def _grown(mask: "np.ndarray", radius: int) -> "np.ndarray":
    """The mask with every pixel grown to a square of side 2 radius + 1, at a cost that does not depend on the radius."""
    import numpy as np

    side = 2 * radius + 1
    sums = np.pad(mask, ((radius + 1, radius), (radius + 1, radius))).cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)
    return sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side] > 0


def pieces(mask: "np.ndarray") -> "list[np.ndarray]":
    """The connected pieces of a mask on a grid of at most 64 cells a side, largest first, without crumbs (a tenth of the largest)."""
    import numpy as np
    from scipy.ndimage import label

    step = -(-max(mask.shape) // GRID)
    padded = np.pad(mask, [(0, -length % step) for length in mask.shape])
    coarse = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step).any(axis=(1, 3))
    labels = np.repeat(np.repeat(label(coarse, structure=np.ones((3, 3)))[0], step, axis=0), step, axis=1)[: mask.shape[0], : mask.shape[1]]
    pixels = np.bincount(labels[mask])
    by_size = [int(number) for number in np.argsort(-pixels, kind="stable") if pixels[number] >= 0.1 * pixels.max()]
    return [(labels == number) & mask for number in by_size]
