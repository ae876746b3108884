"""Draws docs/contact_sheet.jpg: a row for each product of the made benchmark, two normal photographs and eight with defects.

python docs/make_contact_sheet.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

from iadr1 import drawing, products
from iadr1.synthetic import DEFECTS, Product, scene, with_defect
from iadr1.synthetic_sets import PARTS_ONLY

INTO = Path(__file__).with_name("contact_sheet.jpg")
COLUMNS, NORMAL = 10, 2


def main() -> None:
    """Training products on the left, those of the test sets on the right."""
    tests = (products.MVTEC, products.VISA, products.MPDD, products.DAGM, products.DTD, products.SDD)
    left, right = list(products.NAMED.values()), [product for table in tests for product in table.values()]
    rng = np.random.default_rng(0)
    halves = [np.concatenate([_row(product, rng) for product in half]) for half in (left, right)]
    height = max(len(half) for half in halves)
    padded = [np.pad(half, ((0, height - len(half)), (0, 8), (0, 0)), constant_values=255) for half in halves]
    Image.fromarray(np.concatenate(padded, axis=1)).save(INTO, quality=80)
    print(INTO)


def _row(product: Product, rng: np.random.Generator) -> np.ndarray:
    kinds = [kind for kind in DEFECTS if product.parts or kind not in PARTS_ONLY]
    shown = [None] * NORMAL + list(rng.choice(kinds, COLUMNS - NORMAL, replace=False))
    return np.concatenate([_photo(product, kind, rng) for kind in shown], axis=1)


def _photo(product: Product, kind: str | None, rng: np.random.Generator) -> np.ndarray:
    base = scene(product, rng)
    image = base.image if kind is None else with_defect(base, kind, rng).image
    return drawing.to_bytes(drawing.lit(image, rng))


if __name__ == "__main__":
    main()
