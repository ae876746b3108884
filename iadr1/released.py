"""What the authors' released code computes for a completion, written from its observed behaviour, so that results can be compared with theirs.

Nothing else should use it: it reads only the first tags in lower case on one line, finds "right" in "bright" and pays "." for every type.
Where the behaviour of a missing location or type tag is not known, it earns nothing here.
"""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from functools import lru_cache
from typing import NamedTuple

from iadr1.verdict import Pattern, Status, Verdict

_ADJACENT_ANOMALOUS = ("</think><location>", "</location><type>", "</type><answer>", "</answer>")
_NOT_KEPT = re.compile(r"[^\w\s-]")

FUZZY_THRESHOLD = 0.7
CACHED_LENGTH = 200

_TAXONOMY = {
    "surface anomalies": {
        "contamination": "surface contamination, stain, dirt, impurity, color anomaly",
        "presence of foreign objects": "foreign object, foreign body, debris, contaminant object, extraneous material, foreign element, foreign matter, "
        "unwanted object",
        "scratch": "surface scratch, scratch mark, linear scratch, score mark, linear anomaly",
        "missing parts": "missing part, surface notch, notch, gap, chip, surface discontinuity",
    },
    "structural anomalies": {
        "deformation": "shape distortion, warping, bending, twisting, shape deviation, geometric distortion, irregularity, bent component",
        "hole": "opening, perforation, puncture, cavity, void, aperture, penetration defect, through-hole",
        "damage": "structural damage, breakage, fracture, rupture, deterioration, material damage, surface damage",
        "abrasion": "wear, grinding damage, surface erosion, wear mark, surface wear",
    },
}
_GROUP_WORDS = {f"{kind} {word}": f"{kind} anomalies" for kind in ("surface", "structural") for word in ("anomaly", "anomalies")}


class _Category(NamedTuple):
    name: str
    group: str


_KEYWORDS: dict[str, _Category] = {
    keyword: _Category(category, group)
    for group, categories in _TAXONOMY.items()
    for category, keywords in categories.items()
    for keyword in (category, *keywords.split(", "))
}


def released_verdict(text: str) -> Verdict:
    """The released reading: the first tag of each kind on one line, and the layout found anywhere in the text."""
    answer = _first(text, "answer")
    said = answer.strip().lower() if answer is not None else ""
    anomalous = {"yes": True, "no": False}.get(said)
    status: Status = "unreadable" if anomalous is None else "malformed"
    return Verdict(anomalous, _first(text, "location"), _first(text, "type"), None, status, _layout(text))


def _first(text: str, tag: str) -> str | None:
    """The content of the first `<tag>…</tag>` that stands on one line."""
    opening, closing, at = f"<{tag}>", f"</{tag}>", 0
    while (at := text.find(opening, at)) >= 0:
        start = at + len(opening)
        line_end = text.find("\n", start)
        end = text.find(closing, start, line_end if line_end >= 0 else len(text))
        if end >= 0:
            return text[start:end]
        if line_end < 0:
            return None
        at = line_end
    return None


def _layout(text: str) -> Pattern | None:
    """The normal layout needs a text without opening location and type tags; the anomalous one all four blocks side by side."""
    if "<location>" not in text and "<type>" not in text:
        return "normal" if _in_order(text, ("<think>", "</think><answer>", "</answer>")) else None
    return "anomalous" if _in_order(text, ("<think>", *_ADJACENT_ANOMALOUS)) else None


def _in_order(text: str, parts: tuple[str, ...]) -> bool:
    at = 0
    for part in parts:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def location_score(predicted: str | None, expected: str) -> float:
    """1 when both texts fall into the same cell of the 3 x 3 grid."""
    return 0.0 if predicted is None else float(cell(predicted) == cell(expected))


def cell(words: str) -> int:
    """The cell, 1 to 9 by rows, by substrings; 5 for everything else."""
    text = words.lower()
    across = -1 if "left" in text else 1 if "right" in text else 0
    down = -3 if "top" in text or "upper" in text else 3 if "bottom" in text or "lower" in text else 0
    return 5 + across + down


def type_score(predicted: str, expected: str) -> float:
    """The released type score, in its own order of look-ups."""
    # The cache must not fill with runaways.
    return _type_score(predicted, expected) if len(predicted) <= CACHED_LENGTH else _type_score.__wrapped__(predicted, expected)


@lru_cache(maxsize=65536)
def _type_score(predicted: str, expected: str) -> float:
    if not predicted or not expected:
        return 0.0
    said, meant = _normal(predicted), _normal(expected)
    said_category, said_confidence = _category(said)
    meant_category, meant_confidence = _category(meant)
    said_group, meant_group = _group(said, said_category), _group(meant, meant_category)
    if said_group and meant_group and said_group != meant_group:
        return 0.0
    if (said in _GROUP_WORDS) != (meant in _GROUP_WORDS) and said_group and said_group == meant_group:
        return 0.3
    if said == meant:
        return 1.0
    if said in meant or meant in said:
        return 0.85
    if said_category is None or meant_category is None:
        return 0.4 * _alikeness(said, meant)
    if said_category == meant_category:
        return 0.6 + 0.25 * min(said_confidence, meant_confidence)
    return 0.3


def _normal(words: str) -> str:
    return re.sub(r"\s+", " ", _NOT_KEPT.sub("", words.lower().strip())).strip()


def _group(words: str, category: _Category | None) -> str | None:
    return _GROUP_WORDS.get(words) or (category.group if category else None)


def _category(words: str) -> tuple[_Category | None, float]:
    """The category of a name and the confidence in it: an exact keyword, else the best by substring, else the most alike."""
    if words in _KEYWORDS:
        return _KEYWORDS[words], 1.0
    shares = (
        (min(len(words), len(key)) / max(len(words), len(key)), category)
        for key, category in _KEYWORDS.items()
        if words in key or key in words
    )
    found = _best(shares)
    return found if found[0] is not None else _best((_alikeness(words, key), category) for key, category in _KEYWORDS.items())


def _best(candidates: Iterable[tuple[float, _Category]]) -> tuple[_Category | None, float]:
    """The first of the highest above nothing."""
    best, confidence = None, 0.0
    for share, category in candidates:
        if share > confidence:
            best, confidence = category, share
    return best, confidence


def _alikeness(one: str, other: str) -> float:
    """difflib's ratio, or 0 below the threshold; the lengths alone rule out most pairs."""
    if 2 * min(len(one), len(other)) < FUZZY_THRESHOLD * (len(one) + len(other)):
        return 0.0
    ratio = SequenceMatcher(None, one, other).ratio()
    return ratio if ratio >= FUZZY_THRESHOLD else 0.0
