"""Gates on chains: each is a function from a row and its annotation to the reason why the chain is unfit, and one line in `GATES`.

The row is what a model would learn (chain, fine type); the annotation is what mask and metadata say. Gates are made to miss rather than to
accuse: a chain that words things in another way passes. `near_duplicate` looks at all rows of a part, the others at one.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from iadr1 import defect_types
from iadr1.agreement import conclusion
from iadr1.locations import cells
from iadr1.prompts import gold
from iadr1.samples import Sample
from iadr1.verdict import Verdict

WORDS = (12, 150)  # the shortest and the longest chain
LONGEST = 4000  # letters; what is longer has too many words, and is read no further
SAME = 0.9  # two chains that share this part of their shingles are one
SHINGLE = 3  # words
ENGLISH = 0.15  # the least share of function words in an English text


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a gate does not let a chain through."""

    gate: str
    reason: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A row to judge: `truth` is the query as it is annotated, `shots` how many references the model sees beside it."""

    row: Sample
    truth: Sample
    grid: int = 3
    shots: int = 0

    @property
    def chain(self) -> str:
        """The chain, in lower case, as far as it is read."""
        return (self.row.reasoning or "")[:LONGEST].lower()

    @property
    def about(self) -> str:
        """The chain without the product's name, which may be a label, a mask, a crack gauge or a word of another language."""
        return re.sub(rf"\b{re.escape(self.row.category.replace('_', ' ').lower())}\b", "part", self.chain)


_HINT = re.compile(
    r"prior (?:guidance|knowledge|information)|guidance|\bhint(?:s|ed)?\b|highlight|annotat|ground[- ]truth|bounding box|\bmask(?:s|ed)?\b|\blabel"
    r"(?:s|led|ed)?\b|\boutlined\b|magenta|expected (?:location|position|place|type|anomal\w+|defect\w*)|(?:given|provided|stated|specified|known|indicated)"
    r" (?:\w+ ){0,2}(?:location|position|area|region|type|class|category|information|answer|defect|anomaly)|as (?:indicated|instructed|told|specified|"
    r"provided|described above)|according to the (?:prompt|instruction|question|description|task|comparison|metadata)|was told|the prompt|metadata|"
    r"coarse type|marked (?:in|by|with)"
)
_REFERENCE = re.compile(
    r"\breferences?\b|\b(?:first|second|other|previous|both|two|normal|template|provided|sample|comparison|good) (?:\w+ )?(?:image|picture|photo)s?\b|"
    r"\btemplate\b|compar(?:ed|ing|ison) (?:to|with|of) the (?:normal|good|template|standard|other|provided|given|original)|image (?:1|2|one|two|a|b)\b"
)
_CLAIM = {
    "a cause that a picture does not show": r"\b(?:caused by|due to|because of|result of|resulting from|as a result of) (?:\w+ ){0,3}"
    r"(?:operator|machine|tool|handling|overheat\w*|heat|impact|transport\w*|wear|manufactur\w*|pressure|corrosion|fatigue|mold\w*|mould\w*|process\w*)",
    "a measure in units that a picture does not hold": r"\d+(?:[.,]\d+)? ?(?:mm|cm|µm|um|microns?|micromet\w+|millimet\w+|centimet\w+|inch(?:es)?)\b",
    "a probability that was not computed": r"\b\d{1,3}(?:\.\d+)? ?(?:%|percent) (?:sure|certain|confiden\w+|probab\w+|likel\w+)|confidence (?:of|score|level)",
    "a consequence that nobody tested": r"\b(?:will|would|could|may|might) (?:\w+ )?(?:fail|break|leak|injure|harm|explode)\b|safety (?:risk|hazard)",
    "something beyond the part": r"\b(?:customer|supplier|price|warrant\w+|batch number|serial number|manufactured (?:in|by|on))\b",
    "itself, a language model": r"\bas an? (?:ai|language model|assistant)\b|\bi (?:cannot|can't|am unable|apologi[sz]e)\b|\bi'm sorry\b",
}
_CLAIMS = {what: re.compile(pattern) for what, pattern in _CLAIM.items()}
_MARKUP = re.compile(r"</?\w+>|```|\*\*|^#+ |^\s*[-*•] |^\s*\d+[.)] |[{}]|https?://", re.MULTILINE)
_FUNCTION_WORDS = frozenset(
    "a an the this that these those it its is are was be been has have had does do not no nor of in on at to from by with and or but as for so than "
    "there here where which what who all any each every both more most other such only very can could may might should would will shows show looks "
    "nothing part surface region defect normal good appears visible between across along near over under without within into out up down left right".split()
)
_PLACE = re.compile(r"\b(?:(?:top|upper|bottom|lower|left|right|cent(?:er|re)|middle|central)(?:[- ]|\b))+")
# "Is left behind", "right next to" and "everywhere except" name no place of a defect.
_NO_PLACE = re.compile(
    r"\bleft (?:behind|by|over|from|out)\b|\bright (?:at|next|angles?|away|above|below|beside|through)\b|\bexcept (?:for )?(?:the )?[^.;]*"
)
_DENIES = re.compile(
    r"\b(?:no|not|without|none|never|nothing|neither|nor|intact|normal|clean|clear|free|undamaged|unaffected|usual|good|even|uniform|smooth|unlike)\b"
)
_CLAUSE = re.compile(r"[.;!?]|,? (?:but|while|whereas|however|although|though)\b|, (?=and )")


def hint_leak(judged: Judged) -> str | None:
    """The teacher's privileged input shows: what it was told, or the highlight."""
    return _quoted("speaks of what only the writer was told", _HINT.search(judged.about))


def reference_mention(judged: Judged) -> str | None:
    """A chain about one image speaks of another."""
    return None if judged.shots else _quoted("speaks of an image that the model will not see", _REFERENCE.search(judged.about))


def label(judged: Judged) -> str | None:
    """The chain concludes the opposite of the label."""
    concluded = conclusion(judged.about)
    if concluded in (None, judged.truth.anomalous):
        return None
    return f"concludes that there is {'a' if concluded else 'no'} defect, but the image is {'defective' if judged.truth.anomalous else 'normal'}"


def location(judged: Judged) -> str | None:
    """The chain names places, and none of them is where the mask is."""
    truth = judged.truth
    marked = cells(truth.location, judged.grid) if truth.anomalous and truth.location else None
    if not marked or truth.location.lower() in judged.chain:  # type: ignore[union-attr]
        return None
    named = [match.group().strip(" -") for clause in _claims(judged.about) for match in _PLACE.finditer(_NO_PLACE.sub(" ", clause))]
    if not named or any(_fits(name, cell, judged.grid) for name in named for cell in marked):
        return None
    return f"places the defect at {', '.join(dict.fromkeys(named))}, but the mask is at {truth.location}"


def type_(judged: Judged) -> str | None:
    """The fine type, or the kinds that the chain names, are of another coarse type than the annotation."""
    truth = judged.truth
    coarse = defect_types.coarse(truth.type) if truth.anomalous and truth.type else None
    if coarse is None:
        return None
    if judged.row.type != truth.type and defect_types.coarse(judged.row.type or "") != coarse:
        return f"names the fine type {judged.row.type}, which is no {coarse}"
    if truth.type and truth.type.lower() in judged.chain:
        return None
    named = frozenset(kind for clause in _claims(judged.about) for kind in _kinds(clause))
    return f"speaks of {', '.join(sorted(named))}, but the defect is of type {truth.type}" if named and coarse not in named else None


def length(judged: Judged) -> str | None:
    """Too few words to reason, or more than a chain needs."""
    words = len(judged.chain.split())
    return None if WORDS[0] <= words <= WORDS[1] else f"has {words} words, not {WORDS[0]} to {WORDS[1]}"


def language(judged: Judged) -> str | None:
    """Not English."""
    letters = [character for character in judged.about if character.isalpha()]
    foreign = sorted({character for character in letters if not character.isascii()})
    words = re.findall(r"[a-z']+", judged.about)
    share = sum(word in _FUNCTION_WORDS for word in words) / max(1, len(words))
    if len(foreign) > 0.02 * len(letters):
        return f"is not English: holds {''.join(foreign[:10])}"
    return None if share >= ENGLISH else f"is not English: {share:.0%} of its words are English function words"


def claim(judged: Judged) -> str | None:
    """A claim that no picture supports."""
    said = ((what, pattern.search(judged.about)) for what, pattern in _CLAIMS.items())
    return next((_quoted(f"claims {what}", match) for what, match in said if match), None)


def grammar(judged: Judged) -> str | None:
    """Markup in the chain, or a verdict that does not come back from its own text."""
    markup = _MARKUP.search((judged.row.reasoning or "")[:LONGEST])
    if markup:
        return _quoted("holds markup", markup)
    verdict = gold(judged.row)
    return None if Verdict.parse(verdict.render()) == verdict else "does not come back from its own text"


GATES: dict[str, Callable[[Judged], str | None]] = {
    "hint_leak": hint_leak,
    "reference_mention": reference_mention,
    "label": label,
    "location": location,
    "type": type_,
    "length": length,
    "language": language,
    "claim": claim,
    "grammar": grammar,
}
NEAR_DUPLICATE = "near_duplicate"
NAMES = (*GATES, NEAR_DUPLICATE)


def findings(judged: Sequence[Judged]) -> list[list[Finding]]:
    """What the gates find in each row of a part; of near-duplicates the first is let through."""
    found = [[Finding(name, reason) for name, gate in GATES.items() if (reason := gate(item))] for item in judged]
    for index, earlier in near_duplicates([item.chain for item in judged]):
        found[index].append(Finding(NEAR_DUPLICATE, f"is nearly the chain of {judged[earlier].row.id}"))
    return found


def near_duplicates(chains: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(later, earlier) for every chain that shares SAME of its shingles (Jaccard) with an earlier one that is none itself.

    Two sets that are that alike share one of their rarest few shingles, so only chains that do are compared.
    """
    shingles = [_shingles(text) for text in chains]
    count: defaultdict[str, int] = defaultdict(int)
    for shingle in (shingle for each in shingles for shingle in each):
        count[shingle] += 1
    holders: defaultdict[str, list[int]] = defaultdict(list)
    for index, mine in enumerate(shingles):
        rarest = sorted(mine, key=lambda shingle: (count[shingle], shingle))[: len(mine) - int(SAME * len(mine)) + 1]
        others = sorted({other for shingle in rarest for other in holders[shingle]})
        twin = next((other for other in others if _alike(mine, shingles[other]) >= SAME), None)
        if twin is not None:
            yield index, twin
            continue
        for shingle in rarest:
            holders[shingle].append(index)


def _shingles(text: str) -> frozenset[str]:
    words = re.findall(r"[^\W_]+", text.lower())
    return frozenset(" ".join(words[at : at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1)))


def _alike(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)


def _quoted(reason: str, match: re.Match[str] | None) -> str | None:
    return f"{reason}: «{match.group().strip()}»" if match else None


def _claims(chain: str) -> list[str]:
    """The clauses that state something present: those that deny, or praise, are left out."""
    return [clause for clause in _CLAUSE.split(chain) if not _DENIES.search(clause)]


def _kinds(clause: str) -> frozenset[str]:
    words = clause.split()
    most = defect_types.LONGEST_NAME
    return frozenset[str]().union(*(defect_types.read_type(" ".join(words[at : at + most])).coarse for at in range(0, len(words), most)))


def _fits(place: str, cell: tuple[int, int], grid: int) -> bool:
    """Whether a place in prose can mean a cell; a side alone is all of that side."""
    words = set(re.split(r"[- ]", place))
    middle = bool(words & {"center", "centre", "middle", "central"})
    vertical = -1 if words & {"top", "upper"} else 1 if words & {"bottom", "lower"} else 0 if middle else None
    horizontal = -1 if "left" in words else 1 if "right" in words else 0 if middle else None
    return _on(vertical, cell[0], grid) and _on(horizontal, cell[1], grid)


def _on(side: int | None, at: int, grid: int) -> bool:
    """Whether a row or column is on a side (-1, 0 the middle, 1); None is anywhere."""
    offset = (at + 0.5) / grid - 0.5
    return side is None or (abs(offset) <= 0.25 if side == 0 else offset * side > 0 or grid == 1)
