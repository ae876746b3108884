"""Pictures with general questions and answers, from which the small backbone learns to see: shapes, colours, places, counts, surfaces; no product, no defect.

The pictures use the same brushes as the made benchmark (`drawing`, `figures`), on bodies and surfaces put together at random.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from iadr1 import drawing as d
from iadr1.figures import BEYOND, FIGURES, Spot
from iadr1.synthetic import SIDE, Part, Product, circle, lattice, place, scene

NAMES = {
    "line": "line", "pair": "double line", "hole": "round spot", "dots": "dots", "tear": "ragged spot", "cloud": "cloud", "tint": "colour patch",
    "specks": "specks", "chip": "polygon", "thread": "thread", "bits": "small triangles", "cut": "window", "bulge": "bump", "shift": "swirl",
    "tree": "branch", "zigzag": "zigzag", "shards": "splinters", "hatch": "hatching",
}  # fmt: skip
BODIES = {
    "disk": (0.7,), "box": (0.78, 0.55, 0.05), "ring": (0.5, 0.2), "gear": (0.66, 10), "hexagon": (0.62,), "octagon": (0.66,), "triangle": (0.42,),
}  # fmt: skip
COLOURS = {
    "white": (0.88, 0.88, 0.86), "grey": (0.55, 0.55, 0.55), "black": (0.2, 0.2, 0.21), "red": (0.72, 0.26, 0.22), "green": (0.24, 0.52, 0.32),
    "blue": (0.28, 0.4, 0.7), "yellow": (0.8, 0.68, 0.3), "brown": (0.48, 0.34, 0.24),
}  # fmt: skip
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
COUNTS = ("none", "one", "two")


@dataclass(frozen=True)
class Picture:
    """One page: the image uint8 [S, S, 3] and what is on it. `figures` holds name and cell (row, column of 3 x 3) of each small figure."""

    image: np.ndarray
    body: str
    surface: str
    colour: str
    figures: tuple[tuple[str, tuple[int, int]], ...]
    covers: tuple[np.ndarray, ...]


def _random_product(rng: np.random.Generator) -> tuple[Product, str, str, str]:
    surface, colour = str(rng.choice(list(d.SURFACES))), str(rng.choice(list(COLOURS)))
    ground = COLOURS[str(rng.choice([name for name in COLOURS if name != colour]))]
    tones, relief = COLOURS[colour], rng.uniform(0.02, 0.1)
    if rng.random() < 0.5:
        return Product(tones, surface, relief, turn=1.5, zoom=rng.uniform(0.6, 1.5)), "nothing", surface, colour
    body = str(rng.choice(list(BODIES)))
    parts = (_body(body, rng), *(_ornament(rng) for _ in range(rng.integers(0, 4))))
    return Product(tones, surface, relief, parts, ground, turn=1.5, zoom=rng.uniform(0.8, 1.15)), body, surface, colour


def _body(shape: str, rng: np.random.Generator) -> Part:
    """One large body, or the same shape smaller and repeated in order."""
    if rng.random() < 0.65:
        return Part(shape, BODIES[shape])
    at, share = [(lattice(2, 2, 0.86, 0.86), 0.5), (lattice(3, 1, 0.56, 0), 0.34), (lattice(1, 2, 0, 0.9), 0.6), (circle(3, 0.48), 0.5)][
        rng.integers(4)
    ]
    first, *rest = BODIES[shape]
    return Part(shape, (first * share, *(rest if shape == "gear" else (size * share for size in rest))), at)


def _ornament(rng: np.random.Generator) -> Part:
    """Regular pieces on or in a body, so that structure alone does not mean a figure."""
    places = [
        ((0.0, 0.0),),
        lattice(2, 2, 0.6, 0.5),
        lattice(3, 1, 0.4, 0),
        lattice(1, 3, 0, 0.3),
        lattice(5, 1, 0.24, 0),
        lattice(3, 3, 0.4, 0.4),
    ]
    at = [*places, *(circle(count, 0.38) for count in (3, 4, 6))][rng.integers(len(places) + 3)]
    thin, size = rng.uniform(0.02, 0.06), rng.uniform(0.05, 0.2)
    shapes = [
        ("disk", (size,)),
        ("box", (size, rng.uniform(0.04, 0.25))),
        ("ring", (rng.uniform(0.1, 0.55), thin)),
        ("box", (0.6, thin)),
        ("hexagon", (size,)),
    ]
    shape, sizes = shapes[rng.integers(len(shapes))]
    return Part(shape, sizes, at, tone=rng.uniform(0.1, 0.4) * rng.choice([-1, 1]), cut=bool(rng.random() < 0.3))


def picture(rng: np.random.Generator) -> Picture:
    """One random page with none, one or two small figures."""
    product, body, surface, colour = _random_product(rng)
    base = scene(product, rng)
    image = base.image
    found: list[Any] = []
    covers: list[Any] = []
    for _ in range(rng.choice(3, p=[0.4, 0.5, 0.1])):
        name = str(rng.choice(list(FIGURES)))
        cx, cy = place(base.product, rng, on_edge=False)
        tone = rng.uniform(0.12, 0.6) * rng.choice([-1, 1])
        colour_of_figure = rng.permutation([rng.uniform(0.7, 1), rng.uniform(0.2, 0.8), rng.uniform(0, 0.3)]).astype(np.float32)
        drawn = FIGURES[name](image, Spot(cx, cy, rng.uniform(0.16, 0.4), tone, colour_of_figure, base.ground, rng))
        if name not in BEYOND:
            drawn = image + (drawn - image) * base.product[..., None]
        cover = np.abs(np.clip(drawn, 0, 1) - np.clip(image, 0, 1)).max(-1) > 0.04
        if cover.sum() >= 12:
            rows, columns = np.nonzero(cover)
            cell = (int(rows.mean() * 3 // SIDE), int(columns.mean() * 3 // SIDE))
            image, found, covers = drawn, [*found, (name, cell)], [*covers, cover]
    return Picture(d.to_bytes(d.lit(image, rng)), body, surface, colour, tuple(found), tuple(covers))


def position(cell: tuple[int, int]) -> str:
    """The words of a cell of the 3 x 3 grid, as inspection says them."""
    row, column = cell
    if cell == (1, 1):
        return "center"
    return f"{'center' if row == 1 else ROWS[row]} {'center' if column == 1 else COLUMNS[column]}"


def described(page: Picture) -> str:
    """The page in short sentences."""
    body = "It fills the picture." if page.body == "nothing" else f"The large shape is a {page.body}."
    if not page.figures:
        return f"The surface is {page.surface} and {page.colour}. {body} Nothing else is there."
    found = " ".join(f"At the {position(cell)} there is a {NAMES[name]}." for name, cell in page.figures)
    return f"The surface is {page.surface} and {page.colour}. {body} {found}"


def _yes_no(rng: np.random.Generator, question: str, true: str, others: list[str]) -> tuple[str, str]:
    """A balanced yes/no question about one property; `question` holds {} for the value."""
    yes = rng.random() < 0.5
    value = true if yes else str(rng.choice([other for other in others if other != true]))
    return question.format(value) + " Please answer by yes or no.", "Yes." if yes else "No."


def questions(page: Picture, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Every question the page can answer, with its answer; yes/no questions never ask whether something is there."""
    asked = [
        ("Describe the picture.", described(page)),
        ("How many small figures are there?", COUNTS[len(page.figures)].capitalize() + "."),
        ("What texture does the surface have?", page.surface.capitalize() + "."),
        ("What colour is the surface?", page.colour.capitalize() + "."),
        _yes_no(rng, "Is the surface {}?", page.surface, list(d.SURFACES)),
        _yes_no(rng, "Is the colour of the surface {}?", page.colour, list(COLOURS)),
    ]
    if page.body != "nothing":
        asked += [("What is the large shape?", f"A {page.body}."), _yes_no(rng, "Is the large shape a {}?", page.body, list(BODIES))]
    if len(page.figures) == 1:
        name, cell = page.figures[0]
        asked += [("What is the small figure?", f"A {NAMES[name]}."), ("Where is the small figure?", position(cell).capitalize() + ".")]
    return asked
