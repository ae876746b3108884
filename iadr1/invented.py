"""Products put together at random: a body, wings and holes, regular pieces on it. No two are alike, and none is a product of the test sets.

The picture book draws a new one on every page, so that structure alone never means a figure; the made benchmark trains on some of them.
"""

from dataclasses import dataclass

import numpy as np

from iadr1 import drawing
from iadr1.synthetic import Part, Product, circle, lattice

BODIES = {
    "disk": (0.7,), "box": (0.78, 0.55, 0.05), "ring": (0.5, 0.2), "gear": (0.66, 10), "hexagon": (0.62,), "octagon": (0.66,), "triangle": (0.42,),
}  # fmt: skip
COLOURS = {
    "white": (0.88, 0.88, 0.86), "grey": (0.55, 0.55, 0.55), "black": (0.2, 0.2, 0.21), "red": (0.72, 0.26, 0.22), "green": (0.24, 0.52, 0.32),
    "blue": (0.28, 0.4, 0.7), "yellow": (0.8, 0.68, 0.3), "brown": (0.48, 0.34, 0.24),
}  # fmt: skip
ARRANGED = [(lattice(2, 2, 0.86, 0.86), 0.5), (lattice(3, 1, 0.56, 0), 0.34), (lattice(1, 2, 0, 0.9), 0.6), (circle(3, 0.48), 0.5)]


@dataclass(frozen=True)
class Invention:
    """A random product and the names of what it is made of; `body` is "nothing" when a bare surface fills the picture."""

    product: Product
    body: str
    surface: str
    colour: str


def invent(rng: np.random.Generator) -> Invention:
    """One product: two fifths bare surfaces, the others a body with up to three kinds of pieces."""
    surface, colour = str(rng.choice(list(drawing.SURFACES))), str(rng.choice(list(COLOURS)))
    ground = COLOURS[str(rng.choice([name for name in COLOURS if name != colour]))]
    tones, relief = COLOURS[colour], rng.uniform(0.02, 0.1)
    if rng.random() < 0.4:
        return Invention(Product(tones, surface, relief, turn=1.5, zoom=rng.uniform(0.6, 1.5)), "nothing", surface, colour)
    body = str(rng.choice(list(BODIES)))
    parts = (_body(body, rng), *_wings(rng), *(_pieces(rng) for _ in range(rng.integers(0, 4))))
    return Invention(Product(tones, surface, relief, parts, ground, turn=1.5, zoom=rng.uniform(0.8, 1.15)), body, surface, colour)


def catalogue(count: int, *, seed: int) -> dict[str, Product]:
    """`count` products by name; the same seed gives the same products."""
    rng = np.random.default_rng(seed)
    return {f"part {number:03d}": invent(rng).product for number in range(1, count + 1)}


def _body(shape: str, rng: np.random.Generator) -> Part:
    """One large body, or the same shape smaller and repeated in order."""
    if rng.random() < 0.65:
        return Part(shape, BODIES[shape])
    at, share = ARRANGED[rng.integers(len(ARRANGED))]
    first, *rest = BODIES[shape]
    return Part(shape, (first * share, *(rest if shape == "gear" else (size * share for size in rest))), at)


def _wings(rng: np.random.Generator) -> list[Part]:
    """Large pieces of the same tone that widen the outline, or large holes in it."""
    wings = []
    for _ in range(rng.choice(3, p=[0.5, 0.3, 0.2])):
        at = (tuple(rng.uniform(-0.55, 0.55, 2)),)
        shape, sizes = [("box", (rng.uniform(0.08, 0.3), rng.uniform(0.3, 0.8), 0.03)), ("disk", (rng.uniform(0.15, 0.4),))][
            rng.integers(2)
        ]
        lying = sizes[1::-1] + sizes[2:]  # width and height exchanged; a disk has but one size
        wings.append(Part(shape, lying if rng.random() < 0.5 else sizes, at, cut=bool(rng.random() < 0.35)))
    return wings


def _pieces(rng: np.random.Generator) -> Part:
    """Regular pieces on or in the body: a single one, a grid, a circle of them, or bars."""
    tone, cut = rng.uniform(0.1, 0.45) * rng.choice([-1, 1]), bool(rng.random() < 0.3)
    thin, size = rng.uniform(0.02, 0.07), rng.uniform(0.05, 0.2)
    arrangement = rng.integers(4)
    if arrangement == 0:
        shape, sizes = [("disk", (2 * size,)), ("ring", (rng.uniform(0.1, 0.6), thin)), ("box", (2 * size, rng.uniform(0.05, 0.5)))][
            rng.integers(3)
        ]
        return Part(shape, sizes, (tuple(rng.uniform(-0.4, 0.4, 2) * (rng.random() < 0.5)),), tone, cut)
    if arrangement == 1:
        count = int(rng.integers(2, 7))
        bars = lattice(1, count, 0, rng.uniform(0.9, 1.4) / count)
        return Part("box", (rng.uniform(0.3, 0.8), min(thin, 0.25 / count)), bars, tone, cut)
    if arrangement == 2:
        columns, rows = rng.integers(1, 6, 2)
        pitch = rng.uniform(0.9, 1.5) / max(columns, rows)
        at = lattice(int(columns), int(rows), pitch, pitch)
    else:
        pitch, at = 0.3, circle(int(rng.integers(3, 9)), rng.uniform(0.2, 0.6))
    size = min(size, 0.42 * pitch)
    shape, sizes = [("disk", (size,)), ("box", (size, size * rng.uniform(0.3, 1.0))), ("ring", (size, thin / 2)), ("hexagon", (size,))][
        rng.integers(4)
    ]
    return Part(shape, sizes, at, tone, cut)
