"""Reference images that look like the query: of the same product, nearest first, and never the query itself."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from iadr1.ahead import ahead
from iadr1.images import open_image
from iadr1.samples import Sample

SIDE = 16  # pixels of the small pictures that are compared
AHEAD = 64


def with_similar(samples: Sequence[Sample], *, shots: int) -> list[Sample]:
    """The samples, each with the `shots` references nearest to its query in place of its own.

    They are chosen from the references of all samples of the product: every sample's own are drawn at random, so together they are (nearly)
    all of its normal images. Near is a small Euclidean distance of two pictures of 16 x 16 pixels in RGB, which sees pose, colour and light.
    """
    found: dict[int, Sample] = {}
    for members in _products(samples).values():
        pool = sorted({path for at in members for path in samples[at].references})
        known = dict(_pictures(pool))
        for at, picture in _pictures([samples[at].images[-1] for at in members], names=members):
            found[at] = replace(samples[at], references=_nearest(samples[at], picture, known, shots))
    return [found[at] for at in range(len(samples))]


def _products(samples: Sequence[Sample]) -> dict[tuple[str, str], list[int]]:
    products: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, sample in enumerate(samples):
        products[sample.dataset, sample.category].append(at)
    return products


def _pictures(paths: Sequence[str], names: Sequence[Any] | None = None) -> Iterator[tuple[Any, Any]]:
    """Each path (or its name) with its small picture, [side * side * 3]."""
    for at, picture in ahead(lambda at: _picture(paths[at]), range(len(paths)), workers=4, most=AHEAD):
        yield (paths if names is None else names)[at], picture


def _picture(path: str) -> Any:
    import numpy as np
    from PIL import Image

    return np.asarray(open_image(path).resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32).ravel()


def _nearest(sample: Sample, picture: Any, known: dict[str, Any], shots: int) -> tuple[str, ...]:
    import numpy as np

    others = [path for path in known if path not in sample.images]
    # Ties by name: the same query always has the same references.
    return tuple(sorted(others, key=lambda path: (float(np.square(known[path] - picture).sum()), path))[:shots])
