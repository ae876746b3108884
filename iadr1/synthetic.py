"""The made benchmark: procedural products and surfaces, normal or with one defect, for training and for six zero-shot test sets.

`scene(product, rng)` draws one photograph of a product, `with_defect` puts a defect on it. `iadr1.synthetic_sets` writes them as data sets.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from iadr1 import drawing as d
from iadr1.figures import BEYOND, FIGURES, Spot

Array = np.ndarray
SIDE = 64


@dataclass(frozen=True)
class Part:
    """One piece of a product: a shape with its sizes, repeated at centres, laid over (tone > 0 brighter) or cut out of what is below."""

    shape: str
    sizes: tuple[float, ...]
    at: tuple[tuple[float, float], ...] = ((0.0, 0.0),)
    tone: float = 0.0
    cut: bool = False


@dataclass(frozen=True)
class Product:
    """A kind of part or surface: its colour, its surface, how far it may turn (radians), and the pieces it is made of; no pieces: it fills the picture."""

    colour: tuple[float, float, float]
    surface: str
    relief: float = 0.06
    parts: tuple[Part, ...] = ()
    ground: tuple[float, float, float] = (0.12, 0.12, 0.13)
    turn: float = 0.15
    zoom: float = 1.0


@dataclass(frozen=True)
class Scene:
    """A drawn product before light and noise: image [S, S, 3], where the product is [S, S] in 0-1, and the picture without it."""

    image: Array
    product: Array
    ground: Array


SHAPES: dict[str, Callable[..., Array]] = {
    "disk": d.disk, "box": d.box, "ring": d.ring, "gear": d.gear,
    "hexagon": lambda x, y, r: d.polygon(x, y, r, 6),
    "octagon": lambda x, y, r: d.polygon(x, y, r, 8),
    "triangle": lambda x, y, r: d.polygon(x, y, r, 3),
}  # fmt: skip


def lattice(columns: int, rows: int, pitch_x: float, pitch_y: float) -> tuple[tuple[float, float], ...]:
    """Centres of a regular arrangement around the origin."""
    return tuple(((i - (columns - 1) / 2) * pitch_x, (j - (rows - 1) / 2) * pitch_y) for j in range(rows) for i in range(columns))


def circle(count: int, radius: float) -> tuple[tuple[float, float], ...]:
    """Centres evenly on a circle."""
    return tuple((radius * np.cos(2 * np.pi * k / count), radius * np.sin(2 * np.pi * k / count)) for k in range(count))


def _part_cover(part: Part, u: Array, v: Array) -> Array:
    shape = SHAPES[part.shape]
    return np.max([d.coverage(shape(u - cx, v - cy, *part.sizes)) for cx, cy in part.at], axis=0)


def scene(product: Product, rng: np.random.Generator) -> Scene:
    """One pose of the product: turned, moved, scaled, its surface grown anew."""
    x, y = d.grid(SIDE)
    jitter = 0.07 if product.parts else 0.4
    pose = {"angle": rng.normal(0, product.turn), "scale": product.zoom * rng.uniform(0.94, 1.06)}
    u, v = d.placed(x, y, cx=rng.uniform(-jitter, jitter), cy=rng.uniform(-jitter, jitter), **pose)
    colour = np.clip(np.asarray(product.colour) * rng.normal(1, 0.05) + rng.normal(0, 0.015, 3), 0.05, 0.95).astype(np.float32)
    relief = product.relief * rng.uniform(0.8, 1.2) * d.SURFACES[product.surface](rng, u, v)
    body = np.clip(colour + relief[..., None], 0, 1).astype(np.float32)
    flat = np.broadcast_to(np.asarray(product.ground, np.float32), body.shape)
    ground = (flat + 0.02 * d.noise(rng, SIDE, 2)[..., None]).astype(np.float32)
    if not product.parts:
        return Scene(body, np.ones_like(x), _bare(body, colour))
    cover = np.zeros_like(x)
    for part in product.parts:
        piece = _part_cover(part, u, v)
        cover = cover * (1 - piece) if part.cut else np.maximum(cover, piece)
        body = d.shade(body, piece, part.tone)
    image = ground * (1 - cover[..., None]) + np.clip(body, 0, 1) * cover[..., None]
    return Scene(image, cover, ground)


def _bare(body: Array, colour: Array) -> Array:
    """What shows where a surface is gone: its own colour, darker and flat."""
    return np.broadcast_to(colour * np.float32(0.45), body.shape)


# --- defects ------------------------------------------------------------------------------------------------------------------------------------

# fine type -> (coarse type, figure, half size from, to). The eight coarse types of Expert-AD.
DEFECTS: dict[str, tuple[str, str, float, float]] = {
    "scratch": ("scratch", "line", 0.18, 0.5),
    "score mark": ("scratch", "pair", 0.18, 0.42),
    "hole": ("hole", "hole", 0.15, 0.36),
    "pit": ("hole", "dots", 0.14, 0.3),
    "puncture": ("hole", "tear", 0.16, 0.34),
    "stain": ("contamination", "cloud", 0.16, 0.4),
    "discoloration": ("contamination", "tint", 0.2, 0.42),
    "dirt": ("contamination", "specks", 0.14, 0.3),
    "foreign particle": ("foreign objects", "chip", 0.16, 0.36),
    "fibre": ("foreign objects", "thread", 0.18, 0.36),
    "debris": ("foreign objects", "bits", 0.16, 0.34),
    "missing part": ("missing parts", "cut", 0.2, 0.4),
    "notch": ("missing parts", "cut", 0.16, 0.34),
    "dent": ("deformation", "bulge", 0.18, 0.36),
    "bend": ("deformation", "shift", 0.22, 0.4),
    "crack": ("damage", "tree", 0.18, 0.42),
    "fracture": ("damage", "zigzag", 0.16, 0.38),
    "breakage": ("damage", "shards", 0.16, 0.36),
    "abrasion": ("abrasion", "hatch", 0.18, 0.4),
    "wear mark": ("abrasion", "hatch", 0.18, 0.34),
}
ON_EDGE = {"notch", "bend"}
CHANGED = 0.03  # a pixel belongs to the defect where it differs by more than this from the same scene without it


@dataclass(frozen=True)
class Defect:
    """A drawn defect: the changed image, its mask [S, S], and contrast times the square root of its area share."""

    image: Array
    mask: Array
    visibility: float


def place(product: Array, rng: np.random.Generator, *, on_edge: bool) -> tuple[float, float]:
    """A point of the product, each cell of the 3 x 3 grid equally likely among those it covers."""
    inside = product > 0.6
    if on_edge and not inside.all():
        soft = np.abs(d.gaussian_filter(product, 2) - 0.5) < 0.25
        inside = soft if soft.any() else inside
    rows, columns = np.nonzero(inside[4:-4, 4:-4])
    cell = (rows * 3 // (SIDE - 8)) * 3 + columns * 3 // (SIDE - 8)
    pick = rng.choice(np.flatnonzero(cell == rng.choice(np.unique(cell))))
    x, y = d.grid(SIDE)
    return float(x[0, columns[pick] + 4]), float(y[rows[pick] + 4, 0])


def with_defect(base: Scene, kind: str, rng: np.random.Generator) -> Defect:
    """The scene with one defect of the fine type `kind`; contrast from barely visible to plain."""
    _, figure, smallest, largest = DEFECTS[kind]
    colour = rng.permutation([rng.uniform(0.7, 1), rng.uniform(0.2, 0.8), rng.uniform(0.0, 0.3)]).astype(np.float32)
    for _ in range(20):
        cx, cy = place(base.product, rng, on_edge=kind in ON_EDGE)
        tone = rng.uniform(0.08, 0.7) * (1 if rng.random() < 0.5 else -1)
        spot = Spot(cx, cy, rng.uniform(smallest, largest), tone, colour, base.ground, rng)
        drawn = FIGURES[figure](base.image, spot)
        if figure not in BEYOND:  # these change the part itself, not what lies behind it
            drawn = base.image + (drawn - base.image) * base.product[..., None]
        change = np.abs(np.clip(drawn, 0, 1) - np.clip(base.image, 0, 1)).max(-1)
        mask = change > CHANGED
        if mask.sum() >= 12:
            visibility = float(change[mask].mean() * np.sqrt(mask.mean()))
            return Defect(drawn, mask, visibility)
    raise ValueError(f"{kind}: nothing to see after 20 tries")
