"""P(yes) from the log-probabilities that OpenAI's protocol returns with an answer."""

import math
from collections.abc import Sequence

TRIMMED = " \n\t.*\"'`"

# A token of an answer as written, and the tokens that might have stood there with the logarithms of their probabilities.
Token = tuple[str, Sequence[tuple[str, float]]]


def p_yes(tokens: Sequence[Token]) -> float | None:
    """The probability of yes against no where the answer begins: after `<answer>` if there is one; None where neither word is likely there."""
    text = "".join(written for written, _ in tokens)
    opened = text.lower().rfind("<answer>")
    begins, at = (opened + len("<answer>") if opened >= 0 else 0), 0
    for written, others in tokens:
        at += len(written)
        if at > begins and text[max(begins, at - len(written)) : at].strip(TRIMMED):
            return _share(others)
    return None


def _share(others: Sequence[tuple[str, float]]) -> float | None:
    mass = {"yes": 0.0, "no": 0.0}
    for text, logprob in others:
        word = text.strip(TRIMMED).lower()
        if word in mass:
            mass[word] += math.exp(logprob)
    total = sum(mass.values())
    return mass["yes"] / total if total > 0 else None
