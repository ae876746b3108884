"""Step 1 of Expert-AD: what is known of a query before a teacher sees it, and the normal image of the same product beside it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from iadr1 import defect_types
from iadr1.masks import Region, contrast, elongation, pieces, read_image, read_mask, ring
from iadr1.samples import Sample

if TYPE_CHECKING:
    import numpy as np

# Names of colours by a typical RGB value; a region has the name of the nearest.
COLOURS = {
    "black": (20, 20, 20), "dark grey": (70, 70, 70), "grey": (128, 128, 128), "light grey": (190, 190, 190), "white": (240, 240, 240),
    "dark red": (120, 30, 30), "red": (205, 50, 45), "orange": (230, 140, 50), "dark brown": (75, 50, 30), "brown": (135, 90, 55),
    "beige": (215, 195, 160), "yellow": (225, 210, 70), "dark green": (35, 80, 45), "green": (75, 160, 80), "turquoise": (70, 175, 175),
    "dark blue": (35, 50, 110), "blue": (70, 110, 200), "purple": (125, 70, 150), "pink": (230, 150, 170),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """A query with its annotation (location, coarse or fine type), the words of its region, and a normal reference of its product.

    `finer` says whether a teacher is to name a finer type than the annotated one.
    """

    query: Sample
    region: Region | None = None
    finer: bool = True

    @property
    def image(self) -> str:
        """The path of the query image."""
        return self.query.images[-1]

    @property
    def reference(self) -> str | None:
        """The path of a normal image of the same product, None where there is no other one."""
        return self.query.references[0] if self.query.references else None

    @property
    def coarse(self) -> str | None:
        """The coarse type of the defect, None for a normal image or a type that the taxonomy does not know."""
        return defect_types.coarse(self.query.type) if self.query.type else None


def coarsened(samples: Iterable[Sample]) -> list[Sample]:
    """The samples with the coarse type of each defect; a type that names no single one stays as it is."""
    return [replace(sample, type=defect_types.coarse(sample.type) or sample.type) if sample.type else sample for sample in samples]


@dataclass(frozen=True, slots=True)
class Measures:
    """The largest piece of a mask in figures: area as a share of the image; centre as shares of its width and height; length over width;
    the long axis in degrees from the horizontal, counter-clockwise (0-180); mean difference to the surroundings in levels of 255."""

    area: float
    across: float
    down: float
    elongation: float
    angle: float
    contrast: float
    colour: str
    surroundings: str
    pieces: int


def measures(pair: Pair) -> Measures:
    """What the mask of a defect measures; raises DatasetError when image or mask cannot be read."""
    import numpy as np

    assert pair.query.mask is not None
    image, mask = read_image(pair.image), read_mask(pair.query.mask)
    parts = pieces(mask)
    rows, columns = np.nonzero(parts[0])
    around = ring(mask)
    return Measures(
        area=float(parts[0].mean()),
        across=float((columns.mean() + 0.5) / mask.shape[1]),
        down=float((rows.mean() + 0.5) / mask.shape[0]),
        elongation=elongation(parts[0]),
        angle=_angle(rows, columns),
        contrast=float(contrast(image, mask).mean()),
        colour=_colour(image[mask]),
        surroundings=_colour(image[around] if around.any() else image[~mask] if not mask.all() else image[mask]),
        pieces=len(parts),
    )


def _angle(rows: "np.ndarray", columns: "np.ndarray") -> float:
    import numpy as np

    if len(rows) < 3:
        return 0.0
    _, axes = np.linalg.eigh(np.cov(np.stack([columns, -rows])))  # rows count downwards
    return float(np.degrees(np.arctan2(axes[1, -1], axes[0, -1])) % 180)


def _colour(pixels: "np.ndarray") -> str:
    import numpy as np

    middle = np.median(pixels, axis=0)
    return min(COLOURS, key=lambda name: float(((middle - np.array(COLOURS[name])) ** 2).sum()))
