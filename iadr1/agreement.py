"""What a reasoning concludes, so that it can be compared with the answer that follows it.

The last clause with an opinion counts. A clause reports a fault ("a scratch crosses the grain"), denies one ("no scratches, dents or cracks",
"defect-free", "looks normal") or weighs both and has no opinion. The reading is made to miss rather than to accuse: an honest chain that words
things in another way has no conclusion, and agrees with any answer.
"""

import re

# The end of a chain holds its conclusion; reading no more keeps the cost of a completion constant.
CONCLUSION_LENGTH = 240

_TOKEN = re.compile(r"[a-z]++(?:'t)?+|[,!?;:\n]")
_FAULTS = frozenset(
    "defect defects defective anomaly anomalies anomalous abnormal abnormality abnormalities flaw flaws flawed faulty damage damages damaged "
    "broken breakage scratch scratches scratched crack cracks cracked fracture fractured dent dents dented stain stains stained contamination "
    "contaminated contaminant irregularity irregularities deformation deformed blemish blemishes imperfection imperfections rust".split()
)
_SOUND = frozenset("normal intact flawless undamaged".split())
_OPINIONS = _FAULTS | _SOUND
_NEGATORS = frozenset(
    "no not without none never nothing neither nor free absent absence lack lacks isn't aren't doesn't don't cannot can't wasn't weren't".split()
)
_VERBS = frozenset("is are was were shows show has have reveals indicates suggests appears looks seems remains stays be".split())
# "Normal" is an opinion as a predicate only: "differs from the normal grain" is none.
_BEFORE_SOUND = _VERBS | frozenset("everything completely entirely perfectly fully all not isn't aren't".split())
_CUTS = frozenset("but however yet although though whereas while except therefore so thus hence , ! ? ; : \n".split(" "))
# A clause that asks or weighs concludes nothing.
_HEDGES = frozenset("whether if could might may possible possibly unclear check look inspect".split())


def conclusion(reasoning: str) -> bool | None:
    """True when the last clause with an opinion reports a fault, False when it denies one, None when there is none."""
    first, end = max(0, len(reasoning) - CONCLUSION_LENGTH), len(reasoning) - reasoning.endswith(".")
    while end > first:
        start = max(reasoning.rfind(".", first, end), first)
        opinion = _sentence_opinion(reasoning[start:end].lower())
        if opinion is not None:
            return opinion
        end = start
    return None


def _sentence_opinion(sentence: str) -> bool | None:
    tokens = _TOKEN.findall(sentence if sentence.isascii() else sentence.replace("’", "'"))
    if _OPINIONS.isdisjoint(tokens):
        return None
    if _CUTS.isdisjoint(tokens):
        return _opinion(tokens)
    opinions = (_opinion(clause) for clause in reversed(_clauses(tokens)) if not _OPINIONS.isdisjoint(clause))
    return next((opinion for opinion in opinions if opinion is not None), None)


def _clauses(tokens: list[str]) -> list[list[str]]:
    """A sentence cut at connectives, and at commas before a part with its own verb: "no shadow, the line is a scratch"."""
    clauses: list[list[str]] = [[]]
    part: list[str] = []
    for token in [*tokens, ","]:
        if token not in _CUTS:
            part.append(token)
            continue
        if clauses[-1] and _VERBS.isdisjoint(part):
            clauses[-1] += part
        else:
            clauses.append(part)
        part = []
        if token == "?":
            # A question concludes nothing.
            clauses[-1] = []
        elif token != ",":
            clauses.append([])
    return clauses


def _opinion(clause: list[str]) -> bool | None:
    """Whether one clause reports (True) or denies (False) a fault."""
    if not _HEDGES.isdisjoint(clause):
        return None
    negated, said = False, set()
    for index, word in enumerate(clause):
        if word in _NEGATORS:
            # "No doubt there is a defect" denies nothing.
            negated = negated or clause[index + 1 : index + 2] != ["doubt"]
        elif word in _FAULTS:
            said.add(not (negated or clause[index + 1 : index + 2] == ["free"]))
        elif word in _SOUND and index and clause[index - 1] in _BEFORE_SOUND:
            said.add(negated)
    return said.pop() if len(said) == 1 else None
