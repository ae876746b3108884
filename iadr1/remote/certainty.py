"""P(yes) from the log-probabilities that OpenAI's protocol returns with an answer, where it stands and by the formula that all engines share."""

from collections.abc import Sequence

from iadr1.p_yes import answer_position, log_mass, p_yes

# A token of an answer as written, and the likeliest tokens there with the logarithms of their probabilities.
Token = tuple[str, Sequence[tuple[str, float]]]
WORDS = {word: [before + way for before in ("", " ") for way in (word, word.capitalize(), word.upper())] for word in ("yes", "no")}


def certainty(tokens: Sequence[Token]) -> float | None:
    """P(yes) of an answer; None where neither word is among the likeliest, or where the tokens do not tell where the answer begins."""
    numbers = range(len(tokens))
    at = answer_position(lambda some: "".join(tokens[number][0] for number in some), numbers)
    if at is None:
        return None
    yes, no = (log_mass([logprob for text, logprob in tokens[at][1] if text in WORDS[word]]) for word in ("yes", "no"))
    return p_yes(yes, no)
