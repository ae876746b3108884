"""P(yes): how sure a model was of yes against no where its answer stands, from the logits of that one token. Formulas: docs/evaluation.md."""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

_MARK = re.compile(r"<answer>|</think>|<(?:think|location|type)>", re.IGNORECASE | re.ASCII)


class Tokens(NamedTuple):
    """The tokens that an answer of yes, and one of no, may begin with."""

    yes: list[int]
    no: list[int]


def answer_tokens(tokenizer: Any) -> Tokens:
    """The first tokens of yes, Yes, YES and of no, No, NO: alone, after a space, and in an answer block; what begins both is left out."""
    found = [{token for text in _written(word) for token in _first(tokenizer, text)} for word in ("yes", "no")]
    return Tokens(*(sorted(own - other) for own, other in (found, found[::-1])))


def _written(word: str) -> Iterator[str]:
    for before in ("", " ", "<answer>"):
        yield from (before + way for way in (word, word.capitalize(), word.upper()))


def _first(tokenizer: Any, text: str) -> Iterator[int]:
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    at = answer_position(tokenizer.decode, tokens)
    if at is not None:
        yield tokens[at]


def answer_position(decode: Callable[[Sequence[int]], str], tokens: Sequence[int]) -> int | None:
    """Which token the answer begins with: after the last <answer>, else after the reasoning, else the first of the text.

    None where a text has tags but no answer, where nothing follows them, and where the token began before the answer did.
    """
    text = decode(tokens)
    if not text.strip():
        return 0 if tokens else None
    start = _answer_start(text)
    if start is None or not text[start:].strip():
        return None
    start += len(text) - start - len(text[start:].lstrip())
    if start == 0 and decode(tokens[:1]):
        return 0
    position = bisect_right(range(len(tokens)), start, key=lambda at: len(decode(tokens[: at + 1])))
    before = len(decode(tokens[:position]))
    return position if position < len(tokens) and not text[before:start].strip() else None


def _answer_start(text: str) -> int | None:
    marks = list(_MARK.finditer(text))
    answers = [mark for mark in marks if mark[0].lower() == "<answer>"]
    if answers:
        return answers[-1].end()
    if marks and marks[-1][0].lower() == "</think>":
        return marks[-1].end()
    return None if marks else 0


def p_yes(log_yes: float, log_no: float) -> float | None:
    """e^yes / (e^yes + e^no) of the two masses' logarithms; None where neither has any."""
    if log_yes == log_no == -math.inf:
        return None
    larger = max(log_yes, log_no)
    yes, no = math.exp(log_yes - larger), math.exp(log_no - larger)
    return yes / (yes + no)


def log_mass(log_probabilities: Sequence[float]) -> float:
    """The logarithm of the sum of probabilities that are given as logarithms."""
    larger = max(log_probabilities, default=-math.inf)
    if larger == -math.inf:
        return larger
    return larger + math.log(math.fsum(math.exp(value - larger) for value in log_probabilities))


class Watch:
    """A logits processor of transformers that changes nothing and remembers, step by step, the masses of yes and of no."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.seen: list[Any] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """The scores as they are, [batch, vocabulary]."""
        import torch

        masses = [scores[:, numbers].float().logsumexp(-1) for numbers in self.tokens]
        self.seen.append(torch.stack(masses))
        return scores

    def rows(self) -> Iterator[list[list[float]]]:
        """For each row of the batch the logarithms of the two masses at each step."""
        import torch

        if self.seen:
            yield from torch.stack(self.seen).permute(2, 0, 1).tolist()
