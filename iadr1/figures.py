"""Small figures drawn on a surface: lines, disks, clouds, threads, bulges … each a function of a Spot, in one table.

The picture book of the small backbone names them as what they are; the made benchmark uses them as defects.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from iadr1 import drawing as d

Array = np.ndarray
PIXEL = 2.0  # a pixel is PIXEL / side wide in drawing coordinates


@dataclass(frozen=True)
class Spot:
    """Where and how to draw: centre and half size in drawing coordinates, signed contrast (-1 to 1), a colour [3], and what lies behind the surface."""

    cx: float
    cy: float
    size: float
    tone: float
    colour: Array
    ground: Array
    rng: np.random.Generator

    def local(self, side: int, *, turned: bool = True) -> tuple[Array, Array]:
        """Coordinates centred on the spot, turned at random."""
        angle = self.rng.uniform(0, 2 * np.pi) if turned else 0.0
        return d.placed(*d.grid(side), cx=self.cx, cy=self.cy, angle=angle)


Figure = Callable[[Array, Spot], Array]


def _stroke(image: Array, points: Array, spot: Spot, width: float) -> Array:
    x, y = d.grid(image.shape[0])
    return d.coverage(d.polyline(x, y, points) - width * PIXEL / image.shape[0])


def line(image: Array, spot: Spot) -> Array:
    """One thin, nearly straight line."""
    path = d.walk(spot.rng, spot.cx, spot.cy, 2 * spot.size, steps=6, turn=0.08)
    return d.shade(image, _stroke(image, path, spot, spot.rng.uniform(0.35, 0.8)), spot.tone)


def pair(image: Array, spot: Spot) -> Array:
    """Two or three parallel lines."""
    path = d.walk(spot.rng, spot.cx, spot.cy, 1.7 * spot.size, steps=4, turn=0.04)
    across = (path[-1] - path[0])[::-1] * [-1, 1]
    across = across / (np.linalg.norm(across) + 1e-9) * spot.rng.uniform(0.06, 0.1)
    shifts = np.arange(spot.rng.integers(2, 4)) - 0.5
    cover = np.max([_stroke(image, path + across * k, spot, 0.4) for k in shifts], axis=0)
    return d.shade(image, cover, spot.tone)


def hole(image: Array, spot: Spot) -> Array:
    """A round, sharply bounded dark disk with a bright lower rim."""
    x, y = spot.local(image.shape[0], turned=False)
    r = 0.55 * spot.size
    rim = d.coverage(d.ring(x, y, r, 0.03)) * np.clip((x + y) / r, 0, 1)
    dark = d.paint(image, d.coverage(d.disk(x, y, r)), 0.05, min(1.0, 1.6 * abs(spot.tone)))
    return d.shade(dark, rim, 0.5 * abs(spot.tone))


def dots(image: Array, spot: Spot) -> Array:
    """A few small dark disks close together."""
    x, y = d.grid(image.shape[0])
    near = spot.rng.normal(0, 0.45 * spot.size, (spot.rng.integers(3, 7), 2))
    cover = np.max([d.coverage(np.hypot(x - spot.cx - a, y - spot.cy - b) - spot.rng.uniform(0.03, 0.055)) for a, b in near], axis=0)
    return d.shade(image, cover, -abs(spot.tone))


def tear(image: Array, spot: Spot) -> Array:
    """A small ragged dark opening."""
    x, y = spot.local(image.shape[0])
    cover = d.coverage(d.blob(spot.rng, x, y * 1.7, 0.5 * spot.size, rough=0.8))
    return d.paint(image, cover, 0.04, min(1.0, 1.6 * abs(spot.tone)))


def cloud(image: Array, spot: Spot) -> Array:
    """A soft irregular darker patch."""
    x, y = spot.local(image.shape[0])
    cover = d.coverage(d.blob(spot.rng, x, y * 1.3, 0.75 * spot.size), soft=0.35 * spot.size)
    return image * (1 - (cover * min(0.9, 1.3 * abs(spot.tone)))[..., None] * (1 - spot.colour * [0.6, 0.4, 0.2]))


def tint(image: Array, spot: Spot) -> Array:
    """A large soft patch of another hue and about the same brightness."""
    x, y = spot.local(image.shape[0])
    cover = d.coverage(d.blob(spot.rng, x, y, spot.size), soft=0.6 * spot.size)
    hue = spot.colour - spot.colour.mean()
    return image + cover[..., None] * hue * (1.5 * abs(spot.tone))


def specks(image: Array, spot: Spot) -> Array:
    """Many fine dark grains around one place."""
    x, y = spot.local(image.shape[0])
    density = np.exp(-(x**2 + y**2) / (0.9 * spot.size**2))
    grains = gaussian_filter((spot.rng.random(x.shape) < 0.2 * density).astype(np.float32), 0.5)
    return d.shade(image, np.clip(grains * 2.5, 0, 1), -abs(spot.tone))


def _shadowed(image: Array, cover: Array, spot: Spot) -> Array:
    shadow = np.roll(cover, (1, 1), (0, 1))
    strength = min(1.0, 0.25 + 1.5 * abs(spot.tone))
    return d.paint(d.shade(image, shadow, -0.4 * abs(spot.tone)), cover, spot.colour, strength)


def chip(image: Array, spot: Spot) -> Array:
    """One small angular coloured body with a shadow."""
    x, y = spot.local(image.shape[0])
    return _shadowed(image, d.coverage(d.polygon(x, y * spot.rng.uniform(1, 1.6), 0.4 * spot.size, int(spot.rng.integers(3, 6)))), spot)


def thread(image: Array, spot: Spot) -> Array:
    """One long curling coloured thread."""
    path = d.walk(spot.rng, spot.cx, spot.cy, 3.4 * spot.size, steps=14, turn=0.45)
    return _shadowed(image, _stroke(image, path, spot, 0.7), spot)


def bits(image: Array, spot: Spot) -> Array:
    """Several small angular coloured bodies."""
    x, y = d.grid(image.shape[0])
    near = spot.rng.normal(0, 0.5 * spot.size, (spot.rng.integers(3, 6), 2))
    turns = spot.rng.uniform(0, 6.3, len(near))
    each = [
        d.coverage(d.polygon(*d.placed(x, y, cx=spot.cx + a, cy=spot.cy + b, angle=t), 0.05, 3))
        for (a, b), t in zip(near, turns, strict=True)
    ]
    return _shadowed(image, np.max(each, axis=0), spot)


def cut(image: Array, spot: Spot) -> Array:
    """A sharply bounded piece of the surface that is gone, so that what lies behind shows."""
    x, y = spot.local(image.shape[0])
    cover = d.coverage(d.blob(spot.rng, x, y, 0.7 * spot.size, rough=0.25))
    return image * (1 - cover[..., None]) + spot.ground * cover[..., None]


def bulge(image: Array, spot: Spot) -> Array:
    """A round swelling or hollow: the surface is drawn outwards and shaded on one side."""
    side = image.shape[0]
    x, y = spot.local(side, turned=False)
    hill = np.exp(-(x**2 + y**2) / (0.5 * spot.size**2))
    push = 0.5 * side * spot.size * (0.5 + abs(spot.tone))
    moved = d.displaced(image, -x * hill * push, -y * hill * push)
    return d.shade(moved, hill * (x + y) / spot.size, 1.3 * spot.tone)


def shift(image: Array, spot: Spot) -> Array:
    """A place where the surface is pushed aside: edges and patterns bend."""
    side = image.shape[0]
    x, y = spot.local(side, turned=False)
    hill = np.exp(-(x**2 + y**2) / (0.9 * spot.size**2))
    angle = spot.rng.uniform(0, 2 * np.pi)
    push = side * spot.size * (0.12 + 0.3 * abs(spot.tone))
    moved = d.displaced(image, np.cos(angle) * hill * push, np.sin(angle) * hill * push)
    return d.shade(moved, hill * (np.cos(angle) * x + np.sin(angle) * y) / spot.size, 0.6 * abs(spot.tone))


def tree(image: Array, spot: Spot) -> Array:
    """A thin dark jagged line with branches."""
    trunk = d.walk(spot.rng, spot.cx, spot.cy, 2.2 * spot.size, steps=9, turn=0.55)
    twigs = [trunk[k] + d.walk(spot.rng, 0, 0, 0.8 * spot.size, steps=4, turn=0.5) for k in spot.rng.integers(2, 8, 2)]
    cover = np.max([_stroke(image, path, spot, 0.45) for path in (trunk, *twigs)], axis=0)
    return d.shade(image, cover, -abs(spot.tone))


def zigzag(image: Array, spot: Spot) -> Array:
    """A thick dark zigzag with a bright edge."""
    path = d.walk(spot.rng, spot.cx, spot.cy, 1.9 * spot.size, steps=7, turn=0.9)
    dark = d.shade(image, _stroke(image, path, spot, 1.1), -abs(spot.tone))
    return d.shade(dark, _stroke(image, path + 0.035, spot, 0.4), 0.5 * abs(spot.tone))


def shards(image: Array, spot: Spot) -> Array:
    """A ragged patch of light and dark splinters."""
    x, y = spot.local(image.shape[0])
    seeds = spot.rng.normal(0, 0.6 * spot.size, (9, 2))
    nearest = np.argmin([np.hypot(x - a, y - b) for a, b in seeds], axis=0)
    tones = spot.rng.choice([-1.0, -0.5, 0.6], 9)
    cover = d.coverage(d.blob(spot.rng, x, y, 0.7 * spot.size, rough=0.9))
    return image + (cover * tones[nearest] * abs(spot.tone))[..., None]


def hatch(image: Array, spot: Spot) -> Array:
    """A soft patch rubbed into fine parallel bright streaks."""
    side = image.shape[0]
    x, y = spot.local(side)
    cover = d.coverage(d.blob(spot.rng, x * 0.75, y * 1.3, 0.75 * spot.size), soft=0.35 * spot.size)
    streaks = np.clip(np.sin(y * side * 0.75 + spot.rng.normal(0, 0.6)) + 0.5 * d.noise(spot.rng, side, 1.0), -0.3, 1)
    rubbed = image * (1 - 0.7 * cover[..., None]) + gaussian_filter(image, (2, 2, 0)) * (0.7 * cover[..., None])
    return d.shade(rubbed, cover * (streaks + 0.4), 0.8 * abs(spot.tone))


FIGURES: dict[str, Figure] = {
    f.__name__: f
    for f in (line, pair, hole, dots, tear, cloud, tint, specks, chip, thread, bits, cut, bulge, shift, tree, zigzag, shards, hatch)
}

# These change the part itself or lie over its edge; all others stay on its surface.
BEYOND = frozenset({"cut", "bulge", "shift", "chip", "thread", "bits"})
