"""Draws shapes, surfaces and light into small float images: the brushes of the made benchmark and of the small backbone's picture book.

Every image is a float32 array [side, side, 3] in 0-1; every shape is a coverage array [side, side] in 0-1 (anti-aliased). Coordinates run from -1 (left, top)
to 1 (right, bottom).
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

Array = np.ndarray
Rng = np.random.Generator


@lru_cache(maxsize=4)
def grid(side: int) -> tuple[Array, Array]:
    """x and y of every pixel centre, each [side, side]."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1
    x, y = np.meshgrid(axis, axis)
    return x, y


def placed(x: Array, y: Array, *, cx: float = 0.0, cy: float = 0.0, angle: float = 0.0, scale: float = 1.0) -> tuple[Array, Array]:
    """The coordinates as a shape at (cx, cy), turned by `angle` radians and enlarged by `scale`, sees them."""
    c, s = np.cos(angle) / scale, np.sin(angle) / scale
    dx, dy = x - cx, y - cy
    return dx * c + dy * s, dy * c - dx * s


def coverage(distance: Array, soft: float | None = None) -> Array:
    """Signed distance (negative inside) to a coverage with an edge of `soft` (by default one pixel)."""
    soft = 2.0 / distance.shape[0] if soft is None else soft
    return np.clip(0.5 - distance / soft, 0, 1)


def disk(x: Array, y: Array, r: float) -> Array:
    """Signed distance to a disk."""
    return np.hypot(x, y) - r


def box(x: Array, y: Array, w: float, h: float, corner: float = 0.0) -> Array:
    """Signed distance to a box of half sizes w, h with rounded corners."""
    dx, dy = np.abs(x) - w + corner, np.abs(y) - h + corner
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - corner


def ring(x: Array, y: Array, r: float, thick: float) -> Array:
    """Signed distance to a ring of radius r."""
    return np.abs(np.hypot(x, y) - r) - thick


def polygon(x: Array, y: Array, r: float, corners: int) -> Array:
    """Signed distance to a regular polygon of apothem r."""
    angle = np.arctan2(y, x)
    step = 2 * np.pi / corners
    return np.hypot(x, y) * np.cos((angle + step / 2) % step - step / 2) - r


def gear(x: Array, y: Array, r: float, teeth: int, depth: float = 0.12) -> Array:
    """Signed distance (approximate) to a toothed wheel."""
    wave = np.clip(np.cos(np.arctan2(y, x) * teeth) * 3, -1, 1)
    return np.hypot(x, y) - r * (1 + depth * wave)


def segment(x: Array, y: Array, ax: float, ay: float, bx: float, by: float) -> Array:
    """Distance to a straight segment."""
    dx, dy = bx - ax, by - ay
    t = np.clip(((x - ax) * dx + (y - ay) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
    return np.hypot(x - ax - t * dx, y - ay - t * dy)


def polyline(x: Array, y: Array, points: Array) -> Array:
    """Distance to a line through points [k, 2]."""
    away = np.full(x.shape, np.inf, np.float32)
    for (ax, ay), (bx, by) in pairwise(points):
        away = np.minimum(away, segment(x, y, ax, ay, bx, by))
    return away


def walk(rng: Rng, cx: float, cy: float, length: float, *, steps: int, turn: float, angle: float | None = None) -> Array:
    """A path [steps + 1, 2] centred on (cx, cy) whose direction wanders by `turn` radians a step."""
    angle = rng.uniform(0, 2 * np.pi) if angle is None else angle
    headings = angle + np.cumsum(rng.normal(0, turn, steps))
    path = np.concatenate([[[0, 0]], np.cumsum(np.stack([np.cos(headings), np.sin(headings)], 1) * length / steps, 0)])
    return path - path.mean(0) + [cx, cy]


def noise(rng: Rng, side: int, scale: float | tuple[float, float]) -> Array:
    """Smooth noise [side, side] of unit spread; `scale` is its grain in pixels (y, x)."""
    field = gaussian_filter(rng.standard_normal((side, side), np.float32), scale, mode="wrap")
    return (field - field.mean()) / (field.std() + 1e-6)


def blob(rng: Rng, x: Array, y: Array, r: float, *, rough: float = 0.35) -> Array:
    """Signed distance (approximate) to an irregular closed outline of mean radius r."""
    angle = np.arctan2(y, x)
    radius = np.ones_like(x)
    for k in (2, 3, 5):
        radius += rough / k * np.cos(k * angle + rng.uniform(0, 6.3)) * rng.uniform(0.4, 1)
    return np.hypot(x, y) - r * radius


def paint(image: Array, cover: Array, colour: Array | float, strength: float = 1.0) -> Array:
    """The image with a colour laid over it where `cover` is."""
    alpha = (cover * strength)[..., None]
    return image * (1 - alpha) + np.asarray(colour, np.float32) * alpha


def shade(image: Array, cover: Array, amount: float | Array) -> Array:
    """The image made brighter (amount > 0) or darker where `cover` is."""
    return image + (cover * amount)[..., None]


def displaced(image: Array, dx: Array, dy: Array) -> Array:
    """The image read at positions moved by dx, dy pixels."""
    rows, columns = np.indices(image.shape[:2], dtype=np.float32)
    where = np.stack([rows + dy, columns + dx])
    return np.stack([map_coordinates(image[..., k], where, order=1, mode="nearest") for k in range(3)], -1)


def lit(image: Array, rng: Rng, *, strength: float = 0.12, noisy: tuple[float, float] = (0.005, 0.025)) -> Array:
    """The image under a slanting light, with gain, a slight tint, blur and sensor noise: what differs between two photographs of one scene."""
    side = image.shape[0]
    x, y = grid(side)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0, strength) * (x * np.cos(angle) + y * np.sin(angle)) + rng.normal(0, 0.05)
    image = image * (light[..., None] * (1 + rng.normal(0, 0.015, 3))).astype(np.float32)
    if rng.random() < 0.5:
        image = gaussian_filter(image, (0.5, 0.5, 0))
    return image + rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(*noisy))


def to_bytes(image: Array) -> Array:
    """uint8 [side, side, 3]."""
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


# --- surfaces: a height field [side, side] of about unit spread, in the frame (u, v) of the product ------------------------------------------------

Surface = Callable[[Rng, Array, Array], Array]


def plain(rng: Rng, u: Array, v: Array) -> Array:
    """Nothing but fine grain."""
    return noise(rng, u.shape[0], 0.7) * 0.25


def brushed(rng: Rng, u: Array, v: Array) -> Array:
    """Fine lines in one direction, as on milled metal."""
    return noise(rng, u.shape[0], (0.5, 9)) * 0.8


def grainy(rng: Rng, u: Array, v: Array) -> Array:
    """Speckle of a few pixels, as on stone or cast metal."""
    return noise(rng, u.shape[0], 1.6)


def cloudy(rng: Rng, u: Array, v: Array) -> Array:
    """Slow soft patches."""
    return noise(rng, u.shape[0], 8) * 0.8


def waves(u: Array, v: Array, frequency: float, angle: float) -> Array:
    """Parallel waves; `frequency` in periods over the picture's half side."""
    return np.sin((u * np.cos(angle) + v * np.sin(angle)) * frequency * np.pi)


def striped(rng: Rng, u: Array, v: Array) -> Array:
    """Parallel bands."""
    return np.clip(waves(u, v, 5.0, 0.4) * 1.6, -1, 1)


def checked(rng: Rng, u: Array, v: Array) -> Array:
    """A chess board with soft edges."""
    return np.clip(waves(u, v, 4.0, 0) * waves(u, v, 4.0, np.pi / 2) * 4, -1, 1)


def dotted(rng: Rng, u: Array, v: Array) -> Array:
    """Round spots on a square lattice."""
    return np.clip((np.cos(u * 5 * np.pi) + np.cos(v * 5 * np.pi) - 0.7) * 2, -1, 1)


def woven(rng: Rng, u: Array, v: Array) -> Array:
    """Threads over and under, plain weave."""
    over = np.sign(np.sin(u * 7 * np.pi) * np.sin(v * 7 * np.pi))
    return np.where(over > 0, np.abs(np.cos(u * 7 * np.pi)), np.abs(np.cos(v * 7 * np.pi))) * 2 - 1


SURFACES: dict[str, Surface] = {f.__name__: f for f in (plain, brushed, grainy, cloudy, striped, checked, dotted, woven)}
