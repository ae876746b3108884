"""Expert-AD without a paid teacher: short chains of thought, written from what the mask of an image measures.

A chain has the five steps of the paper (observation, comparison, identification, evaluation, decision). Both classes begin with the same openings
and part at one word, «a» or «no», so that a model that decodes greedily weighs the two classes against each other and not their wordings.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iadr1.errors import DatasetError
from iadr1.samples import Sample

if TYPE_CHECKING:
    import numpy as np

SIZES = ((0.005, "tiny"), (0.02, "small"), (0.08, "medium"), (1.0, "large"))  # upper limits of the area share
SHAPES = ((1.8, "round"), (4.0, "oval"), (float("inf"), "long"))  # upper limits of length / width
FAINT = 6.0  # grey levels of 255 between region and surroundings that an eye still passes over
GRID = 64  # cells a side on which the pieces of a mask are told apart
TONES = ("darker", "brighter", "faint")

OPENINGS = (
    "on the {category},",
    "looking over the {category},",
    "scanning the {category},",
    "viewing the {category},",
    "across the whole part,",
    "on the visible surface,",
    "from edge to edge,",
    "with a close look,",
)
SEEN = (
    "a {size} {tone} {shape} mark stands out at the {location}.",
    "a {size} {shape} region is {tone} at the {location}.",
    "a {size} {tone} {shape} spot lies at the {location}.",
    "a {size} {shape} area looks {tone} at the {location}.",
    "a {size} {tone} {shape} trace appears at the {location}.",
    "a {size} {tone} {shape} patch shows at the {location}.",
)
SEEN_SEVERAL = (
    "a group of {size} {tone} marks stands out at the {location}.",
    "a set of {size} {tone} regions lies at the {location}.",
    "a few {size} {tone} spots appear at the {location}.",
    "a number of {size} {tone} areas lie at the {location}.",
)
UNSEEN = (
    "no mark or region stands out from the rest.",
    "no region differs from its surroundings.",
    "no spot of unexpected tone or form lies there.",
    "no area looks out of place or broken.",
    "no trace breaks the surface or the outline.",
    "no patch of another tone shows.",
)
COMPARISON = {
    True: (
        "a good part does not show this.",
        "a normal part has nothing like it.",
        "an intact part looks different there.",
        "a good part does not have it.",
        "the usual product does not have it.",
        "an intact part is clear there.",
        "it breaks the usual look.",
    ),
    False: (
        "a good part looks like this.",
        "a normal part looks the same.",
        "the surface is as expected.",
        "this is the usual look of the product.",
        "the outline is that of an intact part.",
        "nothing breaks the usual look.",
        "each part is in its place.",
    ),
}
IDENTIFICATION = {
    True: (
        "form and tone point to {type}.",
        "this look fits {type}.",
        "the kind of defect is {type}.",
        "it is best named {type}.",
        "the evidence suggests {type}.",
        "this is typical of {type}.",
        "it can be recognised as {type}.",
    ),
    False: (
        "there is no sign of a defect.",
        "no kind of defect can be named.",
        "the evidence suggests an intact part.",
        "there is no defect to name.",
        "this is typical of an intact part.",
        "no defect can be recognised.",
        "the look fits a part without defect.",
    ),
}
EVALUATION = {
    True: (
        "it goes beyond normal variation.",
        "light or texture do not explain it.",
        "it lowers the quality of the product.",
        "it is not part of the design.",
        "such a change matters.",
        "it is outside the standard.",
        "it is more than a change of light.",
    ),
    False: (
        "what varies is normal variation.",
        "light and texture explain what varies.",
        "the quality of the product is not affected.",
        "all that is visible belongs to the design.",
        "no change matters here.",
        "the state is within the standard.",
        "there is no more than a change of light.",
    ),
}
DECISION = {
    True: (
        "so the part is defective.",
        "therefore it has a defect.",
        "the part should be rejected.",
        "so this is an anomaly.",
        "the inspection finds a defect.",
        "the part is not acceptable.",
    ),
    False: (
        "so the part is good.",
        "therefore it has no defect.",
        "the part should be accepted.",
        "so this is a normal part.",
        "the inspection finds no defect.",
        "the part is acceptable.",
    ),
}


@dataclass(frozen=True, slots=True)
class Region:
    """What a mask says about a defect, in words: `several` when it has more than one piece (size and shape are then those of the largest)."""

    size: str
    tone: str
    shape: str
    several: bool = False


def chain(sample: Sample, region: Region | None) -> str:
    """A chain of thought for `sample`, the same at every call; raises DatasetError for a defect without location, type or region."""
    category = sample.category.replace("_", " ").lower()
    if not sample.anomalous:
        return _normal_chain(random.Random(sample.id), category)
    if region is None or not sample.location or not sample.type:
        raise DatasetError(
            f"{sample.id}: a chain needs the location, the type and the mask of a defect; found location {sample.location}, type {sample.type}, "
            f"mask {sample.mask}. Use the sample for sc_grpo, which needs none of them."
        )
    return _defect_chain(random.Random(sample.id), category, region, location=sample.location, type_=sample.type)


def corpus(n: int, *, seed: int, categories: Sequence[str], types: Sequence[str], locations: Sequence[str]) -> Iterator[str]:
    """`n` example chains over all wordings, half of them of defects: what a tokenizer is trained on."""
    chooser = random.Random(seed)
    for index in range(n):
        category = chooser.choice(categories).replace("_", " ").lower()
        if index % 2:
            yield _normal_chain(chooser, category)
        else:
            yield _defect_chain(chooser, category, _any_region(chooser), location=chooser.choice(locations), type_=chooser.choice(types))


def region_of(image: "np.ndarray", mask: "np.ndarray") -> Region:
    """The words for a non-empty boolean mask [H, W] over an image [H, W, 3] of 0-255."""
    pieces = _pieces(mask)
    largest = pieces[0]
    area_share, elongation = float(largest.sum()) / mask.size, _elongation(largest)
    return Region(
        size=next(word for limit, word in SIZES if area_share <= limit),
        tone=_tone(contrast(image, mask)),
        shape=next(word for limit, word in SHAPES if elongation <= limit),
        several=len(pieces) > 1,
    )


def visibility(image: "np.ndarray", mask: "np.ndarray") -> float:
    """How well a defect can be seen: contrast to its surroundings (0-1) times the square root of its area share."""
    return abs(contrast(image, mask)) / 255 * float(mask.mean()) ** 0.5


def contrast(image: "np.ndarray", mask: "np.ndarray") -> float:
    """Mean grey level inside the mask less that of a ring around it, as wide as a tenth of the shorter image side; 0 where no ring is left."""
    grey = image.mean(axis=2) if image.ndim == 3 else image
    ring = _grown(mask, max(2, min(mask.shape) // 10)) & ~mask
    return float(grey[mask].mean() - grey[ring].mean()) if ring.any() else 0.0


def _normal_chain(chooser: random.Random, category: str) -> str:
    return _sentences(chooser, UNSEEN, anomalous=False).format(category=category)


def _defect_chain(chooser: random.Random, category: str, region: Region, *, location: str, type_: str) -> str:
    text = _sentences(chooser, SEEN_SEVERAL if region.several else SEEN, anomalous=True)
    return text.format(category=category, size=region.size, tone=region.tone, shape=region.shape, location=location, type=type_)


def _sentences(chooser: random.Random, seen: Sequence[str], *, anomalous: bool) -> str:
    slots = (OPENINGS, seen, COMPARISON[anomalous], IDENTIFICATION[anomalous], EVALUATION[anomalous], DECISION[anomalous])
    return " ".join(chooser.choice(slot) for slot in slots)


def _any_region(chooser: random.Random) -> Region:
    size, shape = chooser.choice(SIZES)[1], chooser.choice(SHAPES)[1]
    return Region(size=size, tone=chooser.choice(TONES), shape=shape, several=chooser.random() < 0.2)


def _tone(difference: float) -> str:
    if abs(difference) < FAINT:
        return "faint"
    return "darker" if difference < 0 else "brighter"


def _elongation(mask: "np.ndarray") -> float:
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


def _pieces(mask: "np.ndarray") -> "list[np.ndarray]":
    """The connected pieces of a mask, largest first, without crumbs of less than a tenth of the largest; found on a grid of at most 64 cells a side."""
    import numpy as np

    step = -(-max(mask.shape) // GRID)
    padded = np.pad(mask, [(0, -length % step) for length in mask.shape])
    coarse = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step).any(axis=(1, 3))
    labels = np.repeat(np.repeat(_labels(coarse), step, axis=0), step, axis=1)[: mask.shape[0], : mask.shape[1]]
    pieces = sorted(((labels == label) & mask for label in np.unique(labels[mask])), key=lambda piece: -int(piece.sum()))
    return [piece for piece in pieces if piece.sum() >= 0.1 * pieces[0].sum()]


def _labels(cells: "np.ndarray") -> "np.ndarray":
    """One positive number for each 8-connected piece of a small boolean grid, 0 elsewhere: the largest number spreads until nothing changes."""
    import numpy as np

    labels = np.where(cells, np.arange(1, cells.size + 1).reshape(cells.shape), 0)
    while True:
        around = np.lib.stride_tricks.sliding_window_view(np.pad(labels, 1), (3, 3)).max(axis=(2, 3))
        spread = np.where(cells, around, 0)
        if (spread == labels).all():
            return labels
        labels = spread
