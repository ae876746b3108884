"""What a reasoning concludes, so that it can be compared with the answer that follows it."""

import re

# The end of a chain holds its conclusion; reading no more keeps the cost of a completion constant.
CONCLUSION_LENGTH = 240

_CLAUSE_END = re.compile(r"[.!?;:\n]|\b(?:but|however|yet|although|though|whereas|while|therefore|so|thus|hence)\b")
_WORD = re.compile(r"[a-z]++(?:'t)?+")
_FAULTS = frozenset(
    "defect defects defective anomaly anomalies anomalous abnormal abnormality abnormalities flaw flaws flawed faulty damage damages damaged "
    "broken breakage scratch scratches scratched crack cracks cracked fracture fractured dent dents dented stain stains stained contamination "
    "contaminated contaminant irregularity irregularities deformation deformed blemish blemishes imperfection imperfections rust".split()
)
_SOUND = frozenset("normal intact flawless undamaged defectless unblemished".split())
_NEGATORS = frozenset(
    "no not without none never nothing neither nor free absent absence lack lacks isn't aren't doesn't don't cannot can't wasn't weren't".split()
)
# A clause that weighs both, or only asks, concludes nothing.
_HEDGES = frozenset(
    "whether if could might may possible possibly expected typically check checking inspect inspected look looking compared unclear".split()
)


def conclusion(reasoning: str) -> bool | None:
    """True when the last clause with an opinion reports a fault, False when it denies one, None when no clause has one."""
    clauses = _CLAUSE_END.split(reasoning[-CONCLUSION_LENGTH:].lower().replace("no doubt", "surely"))
    for clause in reversed(clauses):
        opinion = _opinion(clause)
        if opinion is not None:
            return opinion
    return None


def _opinion(clause: str) -> bool | None:
    """Whether one clause reports (True) or denies (False) a fault."""
    words = _WORD.findall(clause)
    fault = not _FAULTS.isdisjoint(words)
    sound = not _SOUND.isdisjoint(words)
    if not fault and not sound:
        return None
    if not _HEDGES.isdisjoint(words):
        return None
    negated = not _NEGATORS.isdisjoint(words)
    if fault and sound:
        return False if negated else None
    return fault != negated
