"""A picture is recognized when it was encoded again or made a little brighter, and another one is not."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iadr1.look_alikes import BYTES, NEAR, ROWS, candidates, detail, is_same, perceptual_hash


def picture(seed: int) -> np.ndarray:
    """A picture of soft blobs, as photographs of parts are."""
    coarse = np.random.default_rng(seed).integers(40, 200, (24, 24, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((96, 128), Image.Resampling.BICUBIC))


def as_jpeg(image: np.ndarray) -> np.ndarray:
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "JPEG", quality=75)
    return np.asarray(Image.open(encoded))


def smaller(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((48, 64), Image.Resampling.BICUBIC))


def brighter(image: np.ndarray) -> np.ndarray:
    return np.clip(image * 1.1 + 5, 0, 255).astype(np.uint8)


def pairs(ones: list[np.ndarray], others: list[np.ndarray]) -> list[tuple[int, int]]:
    """The places of pictures that are the same."""
    near = candidates(list(map(perceptual_hash, ones)), list(map(perceptual_hash, others)))
    return [(one, other) for one, other in near if is_same(detail(ones[one]), detail(others[other]))]


@pytest.mark.parametrize("change", [as_jpeg, smaller, brighter])
def test_a_changed_copy_is_recognized(change: Callable[[np.ndarray], np.ndarray]) -> None:
    pictures = [picture(seed) for seed in range(20)]
    assert pairs(pictures, list(map(change, pictures))) == [(seed, seed) for seed in range(20)]


def test_another_picture_is_not() -> None:
    assert pairs([picture(seed) for seed in range(20)], [picture(seed) for seed in range(20, 60)]) == []


def test_another_part_in_the_same_place_is_not() -> None:
    def part(seed: int) -> np.ndarray:
        grain = np.random.default_rng(seed).normal(0, 6, (128, 96, 1))
        return np.clip(picture(0) + grain, 0, 255).astype(np.uint8)

    one, other = part(1), part(2)
    assert candidates([perceptual_hash(one)], [perceptual_hash(other)])
    assert pairs([one], [other]) == []


HASHES = st.lists(st.binary(min_size=BYTES, max_size=BYTES), max_size=6)


@settings(max_examples=50)
@given(HASHES, HASHES, st.sets(st.integers(0, 8 * BYTES - 1), max_size=2 * NEAR))
def test_pairs_are_those_that_differ_by_few_bits(ones: list[bytes], others: list[bytes], flips: set[int]) -> None:
    if ones:
        number = int.from_bytes(ones[0], "big")
        others = [*others, (number ^ sum(1 << bit for bit in flips)).to_bytes(BYTES, "big")]
    near = [
        (place, other)
        for place, one in enumerate(ones)
        for other, another in enumerate(others)
        if (int.from_bytes(one, "big") ^ int.from_bytes(another, "big")).bit_count() <= NEAR
    ]
    assert candidates(ones, others) == near


def test_many_hashes_are_compared_piece_by_piece() -> None:
    ones = [number.to_bytes(BYTES, "big") for number in range(0, 2 * ROWS << 16, 1 << 16)]
    assert (ROWS + 5, 0) in candidates(ones, [ones[ROWS + 5]])
