"""Pictures with general questions and answers, from which the small backbone learns to see: shapes, colours, places, counts, surfaces; no defect.

The pictures use the same brushes as the made benchmark (`drawing`, `figures`), on products put together at random (`invented`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from iadr1 import drawing as d
from iadr1.figures import BEYOND, FIGURES, Spot
from iadr1.invented import BODIES, COLOURS, invent
from iadr1.synthetic import CHANGED, SIDE, place, scene

NAMES = {
    "line": "line", "pair": "double line", "hole": "round spot", "dots": "dots", "tear": "ragged spot", "cloud": "cloud", "tint": "colour patch",
    "specks": "specks", "chip": "polygon", "thread": "thread", "bits": "small triangles", "cut": "window", "bulge": "bump", "shift": "swirl",
    "tree": "branch", "zigzag": "zigzag", "shards": "splinters", "hatch": "hatching",
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


def picture(rng: np.random.Generator) -> Picture:
    """One random page with none, one or two small figures."""
    invention = invent(rng)
    base = scene(invention.product, rng)
    image = base.image
    found: list[Any] = []
    covers: list[Any] = []
    for _ in range(rng.choice(3, p=[0.4, 0.5, 0.1])):
        name = str(rng.choice(list(FIGURES)))
        cx, cy = place(base.product, rng, on_edge=False)
        tone = rng.uniform(0.08, 0.6) * rng.choice([-1, 1])
        colour_of_figure = rng.permutation([rng.uniform(0.7, 1), rng.uniform(0.2, 0.8), rng.uniform(0, 0.3)]).astype(np.float32)
        drawn = FIGURES[name](image, Spot(cx, cy, rng.uniform(0.16, 0.4), tone, colour_of_figure, base.ground, rng))
        if name not in BEYOND:
            drawn = image + (drawn - image) * base.product[..., None]
        cover = np.abs(np.clip(drawn, 0, 1) - np.clip(image, 0, 1)).max(-1) > CHANGED
        if cover.sum() >= 12:
            rows, columns = np.nonzero(cover)
            cell = (int(rows.mean() * 3 // SIDE), int(columns.mean() * 3 // SIDE))
            image, found, covers = drawn, [*found, (name, cell)], [*covers, cover]
    return Picture(d.to_bytes(d.lit(image, rng)), invention.body, invention.surface, invention.colour, tuple(found), tuple(covers))


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
        _yes_no(rng, "Are there any signs of a {} surface in the picture?", page.surface, list(d.SURFACES)),
        _yes_no(rng, "Is the colour of the surface {}?", page.colour, list(COLOURS)),
    ]
    if page.body != "nothing":
        asked += [("What is the large shape?", f"A {page.body}."), _yes_no(rng, "Is the large shape a {}?", page.body, list(BODIES))]
    if len(page.figures) == 1:
        name, cell = page.figures[0]
        asked += [("What is the small figure?", f"A {NAMES[name]}."), ("Where is the small figure?", position(cell).capitalize() + ".")]
    return asked
