"""The made benchmark: seeded, zero-shot, in the public layouts, and nothing but the defect itself tells the label."""

import io
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iadr1 import products
from iadr1.defect_types import coarse
from iadr1.drawing import to_bytes
from iadr1.synthetic import DEFECTS, SIDE, scene, with_defect
from iadr1.synthetic_sets import SETS, TRAIN, plan, write_annotations, write_photo

TESTS = [products.MVTEC, products.VISA, products.MPDD, products.DAGM, products.DTD, products.SDD]


def test_no_test_product_occurs_in_training() -> None:
    for table in TESTS:
        assert not table.keys() & products.TRAIN.keys()
        assert not set(table.values()) & set(products.TRAIN.values())


@pytest.mark.parametrize("kind", DEFECTS)
def test_every_defect_changes_just_its_mask(kind: str) -> None:
    rng = np.random.default_rng(3)
    base = scene(products.TRAIN["label"], rng)
    defect = with_defect(base, kind, rng)
    outside = np.abs(defect.image - base.image).max(-1)[~defect.mask]
    assert defect.mask.sum() >= 12
    assert outside.max() <= 0.031
    assert 0 < defect.visibility < 1


def test_the_fine_types_are_those_of_the_taxonomy() -> None:
    assert {kind: coarse(kind) for kind in DEFECTS} == {kind: group for kind, (group, *_) in DEFECTS.items()}
    assert len({group for group, *_ in DEFECTS.values()}) == 8


def test_half_of_every_data_set_is_defective_and_no_two_photographs_share_a_path() -> None:
    photos = plan(train_images=64, test_images=24, seed=0)
    assert len({photo.image for photo in photos}) == len(photos)
    for name in SETS:
        mine = [photo.kind is not None for photo in photos if photo.dataset == name]
        assert sum(mine) * 2 == len(mine) == (64 if name == TRAIN else 24)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    def drawn(seed: int, root: Path) -> dict[str, bytes]:
        photos = plan(train_images=8, test_images=8, seed=seed)
        write_annotations(root, photos, [write_photo(root, photo) for photo in photos])
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    first, again, other = drawn(1, tmp_path / "a"), drawn(1, tmp_path / "b"), drawn(2, tmp_path / "c")
    assert first == again
    assert first["made/washer/OK/S0001/0001_C1.png"] != other["made/washer/OK/S0001/0001_C1.png"]
    assert json.loads(first["visibility.json"]).keys() <= first.keys()


@cache
def _cues(images: int = 480) -> tuple[np.ndarray, np.ndarray]:
    """What could give the label away without seeing a defect: bytes, border, noise, brightness; and the labels."""
    rng = np.random.default_rng(11)
    tables = [product for table in (products.TRAIN, *TESTS) for product in table.values()]
    rows, labels = [], []
    for index in range(images):
        product = tables[index // 2 % len(tables)]
        base = scene(product, rng)
        kind = str(rng.choice([kind for kind in DEFECTS if product.parts or kind not in {"notch", "bend"}]))
        image = with_defect(base, kind, rng).image if index % 2 else base.image
        rows.append(_cues_of(to_bytes(_lit(image, rng))))
        labels.append(index % 2)
    return np.array(rows), np.array(labels)


def _lit(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    from iadr1.drawing import lit

    return lit(image, rng)


def _cues_of(pixels: np.ndarray) -> list[float]:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    border = np.concatenate([pixels[:2].ravel(), pixels[-2:].ravel(), pixels[:, :2].ravel(), pixels[:, -2:].ravel()])
    flicker = np.median(np.abs(np.diff(pixels.astype(float), axis=0)))
    return [
        len(encoded.getvalue()),
        pixels.shape[0],
        pixels.shape[1],
        border.mean(),
        border.std(),
        flicker,
        float(pixels.mean()),
        float(pixels.std()),
    ]


def test_sizes_borders_and_noise_do_not_give_the_label_away() -> None:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_score

    cues, labels = _cues()
    score = cross_val_score(RandomForestClassifier(200, random_state=0), cues, labels, cv=4, scoring="balanced_accuracy").mean()
    assert score < 0.6


def test_pictures_have_the_side_the_backbone_expects() -> None:
    from iadr1.small_backbone import CELLS, MERGE, PATCH

    assert CELLS * MERGE * PATCH == SIDE
