"""Words to cells, cells to words, masks to cells."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iadr1.locations import cells, mask_cells, mask_words, words

TL, TC, TR, CL, C, CR, BL, BC, BR = [(row, column) for row in range(3) for column in range(3)]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("top left", {TL}),
        ("Upper-Left", {TL}),
        ("left top", {TL}),
        ("topleft", {TL}),
        ("upper left quadrant", {TL}),
        ("top left corner", {TL}),
        ("north west", {TL}),
        ("northwest", {TL}),
        ("NW", {TL}),
        ("left", {CL}),
        ("left-hand side", {CL}),
        ("middle left", {CL}),
        ("to the left of the centre", {CL}),
        ("far right", {CR}),
        ("above the center", {TC}),
        ("under", {BC}),
        ("lower part", {BC}),
        ("center", {C}),
        ("in the middle", {C}),
        ("right at the center", {C}),  # an adverb, not a side
        ("upper right in the image", {TR}),
        ("top left, center right", {TL, CR}),
        ("top and bottom", {TC, BC}),
        ("left and right", {CL, CR}),
        ("upper and lower left", {TL, BL}),
        ("top left and right", {TL, TR}),
        ("top and left", {TL}),
        ("left edge", {TL, CL, BL}),
        ("left and right edges", {TL, CL, BL, TR, CR, BR}),
        ("bottom row", {BL, BC, BR}),
        ("middle row", {CL, C, CR}),
        ("the central column", {TC, C, BC}),
        ("top and bottom rows", {TL, TC, TR, BL, BC, BR}),
        ("upper third", {TL, TC, TR}),
        ("entire left side", {TL, CL, BL}),
        ("corners", {TL, TR, BL, BR}),
        ("upper corners", {TL, TR}),
        ("left corners", {TL, BL}),
        ("bottom left and right corners", {BL, BR}),
        ("left and right corners", {TL, TR, BL, BR}),
        ("middle of the bottom row", {BC}),
        ("center of the top edge", {TC}),
        ("near the edge", {TL, TC, TR, CL, CR, BL, BC, BR}),
        ("left, not right", {CL}),
        ("everywhere except the center", {TL, TC, TR, CL, CR, BL, BC, BR}),
        ("everywhere but the center", {TL, TC, TR, CL, CR, BL, BC, BR}),
        ("not top but bottom", {BC}),
        ("whole image", {TL, TC, TR, CL, C, CR, BL, BC, BR}),
    ],
)
def test_words_name_cells(text, expected):
    assert cells(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "unknown", "none", "n/a", "bright spot", "flower", "laptop", "rightful copyright", "not left", "not in the center", "nowhere",
     "nowhere near the top", "a scratch left by a tool", "half of the image", "a third of the surface", "a quarter", "row 2, column 3", "second row",
     "top, bottom, left, right, center", "top left, top center, top right, center left, center", "left " * 500, "."],
)  # fmt: skip
def test_words_that_name_no_place_have_no_cells(text):
    assert cells(text) is None


@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_set_of_cells_has_words_that_mean_it(n):
    grid = [(row, column) for row in range(n) for column in range(n)]
    for size in range(1, len(grid) + 1):
        for chosen in combinations(grid, size):
            assert cells(words(frozenset(chosen), n), n) == frozenset(chosen)


@given(st.sampled_from([4, 5]), st.data())
def test_cells_of_fine_grids_have_words_too(n, data):
    grid = [(row, column) for row in range(n) for column in range(n)]
    chosen = frozenset(data.draw(st.sets(st.sampled_from(grid), min_size=1)))
    assert cells(words(chosen, n), n) == chosen


@given(st.text(max_size=120), st.integers(1, 5))
def test_any_text_is_read(text, n):
    named = cells(text, n)
    assert named is None or (named and all(0 <= row < n and 0 <= column < n for row, column in named))


def _mask(*boxes, size=90):
    mask = np.zeros((size, size), dtype=bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    "mask, expected",
    [
        (_mask((5, 5, 15, 15)), "top left"),
        (_mask((40, 40, 50, 50)), "center"),
        (_mask((0, 0, 90, 90)), "everywhere"),
        (_mask((5, 25, 15, 35)), "top left, top center"),  # half of it in each
        (_mask((5, 20, 15, 33)), "top left"),  # 23 % in the second
        (_mask((0, 44, 90, 46)), "center"),  # a thin line through three cells: where its centroid is
        (_mask((0, 0, 90, 30)), "top left, center left, bottom left"),  # covers its cells
        (_mask((5, 5, 9, 9), (80, 80, 84, 84)), "top left, bottom right"),
    ],
)
def test_a_mask_is_placed_by_covered_area_and_centroid(mask, expected):
    assert mask_words(mask) == expected


def test_an_empty_mask_has_no_words():
    assert mask_cells(_mask()) == frozenset()
    with pytest.raises(ValueError, match="marks no defect"):
        mask_words(_mask())


def test_words_need_cells_of_the_grid():
    with pytest.raises(ValueError, match="3 x 3 grid"):
        words(frozenset({(3, 0)}))
