"""Where a defect is: words to cells of an n x n grid, cells to words, masks to cells. Try `iadr1 explain`.

Rows and columns are named from the outside in: top, upper, center, lower, bottom and left, inner left, center, inner right, right. Up to three
cells a side, upper is top and lower is bottom. An axis that is not mentioned is in the center, as in the paper's numbering ("left" is "center
left"); an edge, half, third, row or column is a band; a corner or border without a side is all of them, a half, third, row or column without
one is none. Words that name no place have no cells.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

Cell = tuple[int, int]
Cells = frozenset[Cell]

# A place is a phrase; a longer text is prose, or stuffed with every place there is.
LONGEST_PLACE = 400
# More words of place without a comma or "and" between them are no phrase.
MOST_WORDS = 5
# A cell is named when it holds this share of the defect, or when the defect covers this share of the cell.
SHARE_OF_DEFECT = 0.4
SHARE_OF_CELL = 0.5

_TOKEN = re.compile(r"[a-z]+|[,;/&+\n]|n['’]t\b")
_VERTICAL = {
    "top": "top above up topmost north northern",
    "upper": "upper uppermost",
    "bottom": "bottom below beneath under underneath down bottommost south southern",
    "lower": "lower lowermost",
}
_HORIZONTAL = {"left": "left leftmost west western lefthand leftward", "right": "right rightmost east eastern righthand rightward"}
_CENTER = frozenset("center centre central centrally centered centred middle mid midpoint".split())
_COMPASS = {"nw": "north west", "ne": "north east", "sw": "south west", "se": "south east"}
_WHOLE = frozenset("whole entire entirety everywhere throughout overall anywhere full fully widespread".split())
_BANDS = {"edge": "edge", "edges": "edge", "border": "edge", "borders": "edge", "boundary": "edge", "perimeter": "edge", "rim": "edge"}
_BANDS |= {
    "row": "row",
    "rows": "row",
    "column": "column",
    "columns": "column",
    "half": "half",
    "halves": "half",
    "third": "third",
    "thirds": "third",
}
_BANDS |= {"quadrant": "half", "quadrants": "half", "quarter": "half", "corner": "corner", "corners": "corner"}
_JOINS = frozenset("and & + or plus to".split())
_BREAKS = frozenset([",", ";", "/", "\n", "but", "also", "then", "through"])
_NEGATORS = frozenset("not no nowhere without except excluding excepting neither nor never rather outside away n't isn t".split())
# "right at the center" is an adverb and "left by a tool" a verb, no side.
_NO_SIDE_BEFORE = {
    "right": frozenset("at in on next above below under beside near by after before where".split()),
    "left": frozenset("by behind over".split()),
}

_WORD_TOKENS: dict[str, tuple[str, str]] = {
    **{word: ("v", name) for name, words in _VERTICAL.items() for word in words.split()},
    **{word: ("h", name) for name, words in _HORIZONTAL.items() for word in words.split()},
    **dict.fromkeys(_CENTER, ("c", "center")),
    **{word: ("band", kind) for word, kind in _BANDS.items()},
    **dict.fromkeys(_WHOLE, ("whole", "whole")),
}


class _Place(NamedTuple):
    """One region as said: its rows, columns, and whether it is a band."""

    vertical: str | None = None
    horizontal: str | None = None
    center: bool = False
    inner: bool = False
    band: str | None = None
    whole: bool = False
    negated: bool = False
    joined: bool = False

    @property
    def empty(self) -> bool:
        return not (self.vertical or self.horizontal or self.center or self.band or self.whole)


def cells(words: str, n: int = 3) -> Cells | None:
    """The cells that words name, or None when they name no place; cells are (row, column) from the top left."""
    return _cells(words, n) if len(words) <= LONGEST_PLACE else None


@lru_cache(maxsize=65536)
def _cells(words: str, n: int) -> Cells | None:
    places = _places(words)
    named = [place for place in places if not place.negated]
    union: Cells = frozenset().union(*(_cells_of(place, n) for place in named)) if named else frozenset()
    refused: Cells = frozenset().union(*(_cells_of(place, n) for place in places if place.negated)) if named else frozenset()
    whole = any(place.whole for place in named)
    # A list of every place excludes nothing: it is no location.
    stuffed = len(named) > max(2, n * n // 2) or (len(named) > 1 and n > 1 and not whole and len(union) == n * n)
    return None if stuffed or not union - refused else union - refused


def words(cells: frozenset[Cell] | set[Cell], n: int = 3) -> str:
    """The shortest plain words for some cells: a list, or what is left out when that is shorter."""
    grid = {(row, column) for row in range(n) for column in range(n)}
    if not cells or not cells <= grid:
        raise ValueError(f"a location is one or more cells of a {n} x {n} grid; found {sorted(cells)}.")
    if cells == grid:
        return "everywhere"
    if len(cells) > max(2, n * n // 2):
        return "everywhere except " + _listed(grid - cells, n)
    return _listed(cells, n)


def mask_cells(mask: np.ndarray, n: int = 3) -> Cells:
    """The cells of a defect mask: those with 40 % of the defect or half covered by it, else the one of its centroid, else the fullest."""
    import numpy as np

    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        return frozenset()
    height, width = mask.shape
    held = np.bincount(rows * n // height * n + columns * n // width, minlength=n * n)
    covered = held / np.maximum(_cell_sizes(height, width, n), 1)
    chosen = np.flatnonzero((held >= SHARE_OF_DEFECT * rows.size) | (covered >= SHARE_OF_CELL))
    if chosen.size == 0:
        centroid = int(rows.mean() * n // height) * n + int(columns.mean() * n // width)
        chosen = np.array([centroid if held[centroid] else held.argmax()])
    return frozenset((int(index) // n, int(index) % n) for index in chosen)


def mask_words(mask: np.ndarray, n: int = 3) -> str:
    """A defect mask's location in words; an empty mask has none and is refused."""
    found = mask_cells(mask, n)
    if not found:
        raise ValueError(
            f"the mask of {mask.shape[0]} x {mask.shape[1]} pixels marks no defect; give an anomalous image a mask with a marked pixel."
        )
    return words(found, n)


def _cell_sizes(height: int, width: int, n: int) -> np.ndarray:
    import numpy as np

    tall = np.bincount(np.arange(height) * n // height, minlength=n)
    wide = np.bincount(np.arange(width) * n // width, minlength=n)
    return np.outer(tall, wide).ravel()


def _axis_names(n: int, names: tuple[str, str, str, str]) -> list[str]:
    """The n names of an axis from the outside in, with the center where n is odd."""
    first, second, second_last, last = names
    half = [first, second][: n // 2]
    return half + ["center"] * (n % 2) + [second_last, last][2 - n // 2 :]


def _listed(chosen: frozenset[Cell] | set[Cell], n: int) -> str:
    rows = _axis_names(n, ("top", "upper", "lower", "bottom"))
    columns = _axis_names(n, ("left", "inner left", "inner right", "right"))
    named = (f"{rows[row]} {columns[column]}" for row, column in sorted(chosen))
    return ", ".join("center" if name == "center center" else name for name in named)


def _places(words: str) -> list[_Place]:
    """The regions of a phrase, with joined ones completed from each other."""
    tokens = _tokens(words)
    places, current, negated, said = [], _Place(), False, 0
    for index, token in enumerate(tokens):
        said = 0 if token in _BREAKS or token in _JOINS else said + (token in _WORD_TOKENS)
        if said > MOST_WORDS:
            return []
        if token in _BREAKS or token in _JOINS:
            places.append(current)
            # "everywhere but the center" leaves it out, "not top but bottom" takes the "not" back.
            negated = current.whole if token == "but" else negated and token not in (";", "\n")
            current = _Place(negated=negated, joined=token in _JOINS)
        elif token in _NEGATORS:
            if not current.empty:
                places.append(current)
            negated = True
            current = _Place(negated=True)
        else:
            current = _extended(current, token, tokens, index)
    return _completed([place for place in [*places, current] if not place.empty])


def _tokens(words: str) -> list[str]:
    found: list[str] = []
    for token in _TOKEN.findall(words.lower()):
        found += _COMPASS[token].split() if token in _COMPASS else _split_compound(token)
    return found


@lru_cache(maxsize=4096)
def _split_compound(token: str) -> list[str]:
    """ "northwest" and "topleft" as two words, every other token as it is."""
    if token in _WORD_TOKENS or token in _NEGATORS:
        return [token]
    for cut in range(2, len(token) - 1):
        first, second = token[:cut], token[cut:]
        kinds = {_WORD_TOKENS.get(first, ("", ""))[0], _WORD_TOKENS.get(second, ("", ""))[0]}
        if kinds <= {"v", "h", "c"}:
            return [first, second]
    return [token]


def _extended(place: _Place, token: str, tokens: list[str], index: int) -> _Place:
    """A region with one more word; the first word of an axis counts."""
    kind, name = _WORD_TOKENS.get(token, ("", ""))
    if token == "inner":
        return place._replace(inner=True)
    if kind == "v":
        return place if place.vertical else place._replace(vertical=name)
    if kind == "h":
        return place if place.horizontal or _is_adverb(place, tokens, index) else place._replace(horizontal=name)
    if kind == "c":
        return place._replace(center=True)
    if kind == "band":
        return place._replace(band=name)
    if kind == "whole":
        return place._replace(whole=True)
    return place


def _is_adverb(place: _Place, tokens: list[str], index: int) -> bool:
    following = tokens[index + 1] if index + 1 < len(tokens) else ""
    previous = tokens[index - 1] if index else ""
    return following in _NO_SIDE_BEFORE.get(tokens[index], ()) and place.empty and previous not in ("the", "far", "its", "s")


def _completed(places: list[_Place]) -> list[_Place]:
    """Joined regions lend each other what they share: "upper and lower left", "left and right edges", "top and left"."""
    groups: list[list[_Place]] = []
    for place in places:
        if place.joined and groups and groups[-1][-1].negated == place.negated:
            groups[-1].append(place)
        else:
            groups.append([place])
    return [place for group in groups for place in _shared(group)]


def _shared(group: list[_Place]) -> list[_Place]:
    """One joined group, with a band at its end for all ("top and bottom rows") and the sides of a pair completed."""
    band = group[-1].band
    if band and not any(place.band for place in group[:-1]):
        group = [place._replace(band=band) for place in group]
    if len(group) != 2:
        return group
    first, second = group
    if _complementary(first, second):
        return [first._replace(vertical=first.vertical or second.vertical, horizontal=first.horizontal or second.horizontal)]
    return [_lent(first, second), _lent(second, first)]


def _complementary(one: _Place, other: _Place) -> bool:
    if one.band or other.band or one.center or other.center or one.whole or other.whole:
        return False
    return (one.vertical is None) == (other.horizontal is None) != (one.horizontal is None) == (other.vertical is None)


def _lent(place: _Place, lender: _Place) -> _Place:
    """A region that misses an axis takes the lender's, when the lender has both."""
    if place.center or place.whole or place.band not in (None, "corner") or not (lender.vertical and lender.horizontal):
        return place
    return place._replace(vertical=place.vertical or lender.vertical, horizontal=place.horizontal or lender.horizontal)


def _cells_of(place: _Place, n: int) -> Cells:
    """The cells of one region."""
    sideless = not (place.vertical or place.horizontal)
    if place.whole and sideless and not place.center and not place.band:
        return _product(range(n), range(n))
    if place.band in ("edge", "corner") and sideless and not place.center:
        return _border(place.band, n)
    # "Half of it", "the second row": of which side is not said.
    if place.band and sideless and not place.center:
        return frozenset()
    if place.band in ("row", "column"):
        return _line(place, n)
    if place.band == "corner" and not (place.center or (place.vertical and place.horizontal)):
        return _corners(place, n)
    # A band or "entire" with one side runs along all of it: "left edge", "entire top".
    along = not sideless and not place.center and (place.whole or place.band in ("edge", "half", "third"))
    return _product(_axis(place.vertical, place, n, along=along), _axis(place.horizontal, place, n, along=along))


def _product(rows: range, columns: range) -> Cells:
    return frozenset((row, column) for row in rows for column in columns)


def _border(band: str, n: int) -> Cells:
    """All corners, or the whole border."""
    last = n - 1
    border = frozenset((row, column) for row in range(n) for column in range(n) if row in (0, last) or column in (0, last))
    return border if band != "corner" else frozenset(cell for cell in border if cell[0] in (0, last) and cell[1] in (0, last))


def _corners(place: _Place, n: int) -> Cells:
    """The two corners of one side."""
    rows, columns = (_axis(side, place, n, along=True) for side in (place.vertical, place.horizontal))
    return _border("corner", n) & _product(rows, columns)


def _line(place: _Place, n: int) -> Cells:
    """A whole row or column, or the middle of one: "bottom row", "middle row", "middle of the bottom row"."""
    side = place.vertical if place.band == "row" else place.horizontal
    line = _axis(side, place._replace(band="edge"), n, along=False)
    along = _middle(n) if side and place.center else range(n)
    return _product(line, along) if place.band == "row" else _product(along, line)


def _middle(n: int) -> range:
    return range((n - 1) // 2, n // 2 + 1)


def _axis(side: str | None, place: _Place, n: int, *, along: bool) -> range:
    """The rows (or columns) of one region; `along` when a region without this side runs along all of it."""
    if side is None:
        return range(n) if along else _middle(n)
    depth = n // 2 if place.band == "half" else max(1, (n + 1) // 3) if place.band == "third" else 1
    outermost = n <= 3 or side in ("top", "bottom") or (side in ("left", "right") and not place.inner) or place.band is not None
    first = 0 if outermost else 1
    if side in ("top", "upper", "left"):
        return range(first, max(first + 1, depth))
    return range(min(n - first - 1, n - depth), n - first)
