"""Kinds of defects: the eight coarse types, their fine types and synonyms (defect_types.yaml), and how near two names are (Eq. 5).

Names are read by whole words, the longest known phrase first; "no damage", a single letter or a list of kinds names nothing. Two kinds where one
is annotated are a bet: worth their common coarse type at most.
"""

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

EXACT, SEMANTIC, CATEGORY, FUZZY, GROUP, NONE = 1.0, 0.85, 0.6, 0.4, 0.3, 0.0

# Two spellings of one word are at least this alike; the paper gives no figure.
FUZZY_RATIO = 0.8
# A name of more words is a description, or stuffed.
LONGEST_NAME = 12
LONGEST_TEXT = 200

_WORD = re.compile(r"[a-z0-9]+")
_NEGATORS = frozenset("no not none without never nothing neither nor non free absent absence undamaged unbroken unscratched".split())


class Kind(NamedTuple):
    """One fine type of the taxonomy."""

    fine: str
    coarse: str
    group: str


@dataclass(frozen=True)
class Taxonomy:
    """The taxonomy file, indexed by phrases of singular words."""

    version: int
    phrases: dict[tuple[str, ...], Kind]
    groups: dict[tuple[str, ...], str]
    weak: frozenset[str]
    folders: dict[str, str | None]
    coarse: tuple[str, ...]
    longest: int


@dataclass(frozen=True, slots=True)
class TypeReading:
    """What a name of a type says: its words, the kinds named in it and, for a bare group word, the group."""

    normal: str
    kinds: frozenset[Kind]
    group: str | None
    refused: bool

    @property
    def coarse(self) -> frozenset[str]:
        return frozenset(kind.coarse for kind in self.kinds)

    @property
    def groups(self) -> frozenset[str]:
        return frozenset(kind.group for kind in self.kinds) | ({self.group} if self.group else frozenset())


def coarse(words: str) -> str | None:
    """The one coarse type that words name, or None when they name none or several."""
    named = read_type(words).coarse
    return next(iter(named)) if len(named) == 1 else None


def fine(words: str) -> str | None:
    """The one fine type that words name, or None."""
    kinds = read_type(words).kinds
    return next(iter(kinds)).fine if len(kinds) == 1 else None


def from_folder(name: str) -> str | None:
    """The fine type that a defect folder's name states, or None for "bad", "mixed" and the like."""
    key = "_".join(_WORD.findall(name.lower()))
    known = taxonomy().folders
    return known[key] if key in known else fine(name)


def type_score(predicted: str, expected: str) -> float:
    """Equation 5: 1 the same words, 0.85 the same fine type, 0.6 the same coarse type, 0.4 a misspelling, 0.3 the same group, else 0."""
    if len(predicted) > LONGEST_TEXT or len(expected) > LONGEST_TEXT:
        return EXACT if predicted == expected else NONE
    return _type_score(predicted, expected)


@lru_cache(maxsize=65536)
def _type_score(predicted: str, expected: str) -> float:
    said, meant = read_type(predicted), read_type(expected)
    if not said.normal or not meant.normal:
        return NONE
    if said.normal == meant.normal:
        return EXACT
    if said.refused or is_stuffed(said, meant):
        return NONE
    if said.kinds & meant.kinds and len(said.kinds) <= len(meant.kinds):
        return SEMANTIC
    if said.coarse & meant.coarse:
        return CATEGORY
    if _misspelt(said, meant):
        return FUZZY
    return GROUP if said.groups & meant.groups else NONE


def is_stuffed(said: TypeReading, meant: TypeReading) -> bool:
    """Whether a name lists more coarse types than the annotation does, or more than two kinds and more than the annotation does."""
    return len(said.coarse) > max(1, len(meant.coarse)) or len(said.kinds) > max(2, len(meant.kinds))


def read_type(words: str) -> TypeReading:
    """The kinds that words name; negated, overlong and single-letter names are refused."""
    return _read_type(words) if len(words) <= LONGEST_TEXT else TypeReading("", frozenset(), None, True)


@lru_cache(maxsize=65536)
def _read_type(words: str) -> TypeReading:
    tokens = _WORD.findall(words.lower())
    normal = " ".join(tokens)
    if len(tokens) > LONGEST_NAME or len(normal) < 2 or any(_negates(token) for token in tokens):
        return TypeReading(normal, frozenset(), None, True)
    stems = tuple(_singular(token) for token in tokens)
    known = taxonomy()
    if stems in known.groups:
        return TypeReading(normal, frozenset(), known.groups[stems], False)
    kinds = _kinds(stems, known)
    telling = frozenset(kind for kind in kinds if kind.fine not in known.weak) or kinds
    return TypeReading(normal, frozenset(kind for kind in telling if not _is_implied(kind, telling, known)), None, False)


@cache
def taxonomy() -> Taxonomy:
    """The taxonomy of defect_types.yaml."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    raw = yaml.load(files("iadr1").joinpath("defect_types.yaml").read_text(encoding="utf-8"), Loader=loader)
    phrases = {}
    for coarse_name, entry in raw["types"].items():
        phrases[_stems(coarse_name)] = Kind(next(iter(entry["fine"])), coarse_name, entry["group"])
        for fine_name, synonyms in entry["fine"].items():
            for phrase in (fine_name, *synonyms):
                phrases[_stems(phrase)] = Kind(fine_name, coarse_name, entry["group"])
    groups = {_stems(phrase): group for group, words in raw["groups"].items() for phrase in (group, *words)}
    return Taxonomy(
        version=raw["version"],
        phrases=phrases,
        groups=groups,
        weak=frozenset(raw["weak"]),
        folders=raw["folders"],
        coarse=tuple(raw["types"]),
        longest=max(map(len, phrases)),
    )


def _kinds(stems: tuple[str, ...], known: Taxonomy) -> frozenset[Kind]:
    """The kinds of the longest known phrases, from left to right."""
    found, at = set(), 0
    while at < len(stems):
        for length in range(min(known.longest, len(stems) - at), 0, -1):
            kind = known.phrases.get(stems[at : at + length])
            if kind is not None:
                found.add(kind)
                at += length
                break
        else:
            at += 1
    return frozenset(found)


def _is_implied(kind: Kind, named: frozenset[Kind], known: Taxonomy) -> bool:
    """Whether a coarse type's own name is said together with one of its fine types: "contamination (rust)" is rust."""
    return known.phrases[_stems(kind.coarse)] == kind and any(other.coarse == kind.coarse for other in named - {kind})


def _misspelt(said: TypeReading, meant: TypeReading) -> bool:
    """Whether one name is the other with a slip; two known words are never that, nor are words with another first letter."""
    if (said.kinds and meant.kinds) or said.group or len(said.normal) < 4 or said.normal[0] != meant.normal[0]:
        return False
    matcher = SequenceMatcher(None, said.normal, meant.normal, autojunk=False)
    return matcher.quick_ratio() >= FUZZY_RATIO and matcher.ratio() >= FUZZY_RATIO


def _negates(token: str) -> bool:
    return token in _NEGATORS or (token.endswith("less") and token != "less")


def _stems(phrase: str) -> tuple[str, ...]:
    return tuple(_singular(token) for token in _WORD.findall(phrase.lower()))


def _singular(word: str) -> str:
    if len(word) <= 3 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1]
