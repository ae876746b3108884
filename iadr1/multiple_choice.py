"""MMAD's track: questions with lettered options about test images, and the share of right letters for each type of question."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from iadr1 import prompts
from iadr1.errors import DatasetError
from iadr1.samples import Sample
from iadr1.tallies import percent

DETECTION = "Anomaly Detection"  # MMAD's name for its one question of yes and no
INSTRUCTION = "Answer with the option's letter from the given choices directly."
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.IGNORECASE | re.ASCII | re.DOTALL)
_LETTER = re.compile(
    r"[\s*(\"']*(?:the\s+)?(?:correct\s+|final\s+)?(?:(?:answer|option)(?:\s+is)?[\s:*(]*)?([A-Z])(?=[\s*]*$|[\s*]*[).:,*\n])",
    re.IGNORECASE,
)


class _Asked(BaseModel):
    """A question as MMAD's file has it. The whole form is in iadr1.interchange, on which hours of evaluation should not depend."""

    Question: str
    Answer: str
    Options: dict[str, str]
    type: str


class _Entry(BaseModel):
    conversation: list[_Asked]


@dataclass(frozen=True, slots=True)
class Question:
    """One question about a sample; `answer` is the letter of the right option."""

    id: str
    sample: Sample
    type: str
    text: str
    options: Mapping[str, str]
    answer: str

    def chat(self, *, shots: int) -> Sequence[dict[str, Any]]:
        """The question with its options below the images."""
        (asked,) = prompts.messages(self.sample, shots=min(shots, len(self.sample.references)))
        options = "".join(f"\n{letter}: {option}" for letter, option in self.options.items())
        return [{"role": "user", "content": [*asked["content"][:-1], {"type": "text", "text": f"{self.text}{options}\n{INSTRUCTION}"}]}]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a model said to a question, and the letter that this is, None where none can be read."""

    question: Question
    text: str
    letter: str | None

    @property
    def right(self) -> bool:
        """Whether it is the right letter; one that cannot be read is not."""
        return self.letter == self.question.answer


def questions_about(samples: Sequence[Sample], file: Path) -> list[Question]:
    """The questions of MMAD's list (mmad.json) about these samples, found by the end of the image's path below the name of its data set.

    Raises DatasetError when the file has another form, a question's answer is no option, or none is about these samples.
    """
    known = {PurePosixPath(sample.images[-1]).parts[-depth:]: sample for sample in samples for depth in range(2, 7)}
    found = []
    for path, entry in _entries(file).items():
        sample = known.get(PurePosixPath(path).parts[1:])
        if sample is None:
            continue
        for number, asked in enumerate(entry.conversation):
            if asked.Answer not in asked.Options:
                raise DatasetError(f"{file}: {path}: the answer {asked.Answer!r} is none of its options {sorted(asked.Options)}.")
            found.append(Question(f"{path}#{number}", sample, asked.type, asked.Question, asked.Options, asked.Answer))
    if not found:
        raise DatasetError(
            f"{file}: no question is about one of the {len(samples)} test images. Check evaluate.questions and the data set's folder."
        )
    return found


def _entries(file: Path) -> dict[str, _Entry]:
    if not file.is_file():
        raise DatasetError(f"{file}: no such file. Name MMAD's mmad.json in evaluate.questions, or set it to null.")
    try:
        return TypeAdapter(dict[str, _Entry]).validate_json(file.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        raise DatasetError(f"{file}: not MMAD's form: {' '.join(map(str, problem['loc']))}: {problem['msg']}.") from error


def letter_of(text: str, options: Mapping[str, str]) -> str | None:
    """The option that a text names: by its letter first in the answer, or by the option's own words and nothing else."""
    blocks = _ANSWER.findall(text)
    said = (blocks[-1] if blocks else text.rpartition("</think>")[2]).strip()
    match = _LETTER.match(said)
    if match and match[1].upper() in options:
        return match[1].upper()
    meant = [letter for letter, option in options.items() if _bare(option) == _bare(said)]
    return meant[0] if len(meant) == 1 else None


def accuracies(choices: Iterable[Choice]) -> dict[str, dict[str, Any]]:
    """For each type of question: how many, how many answers could not be read, and the accuracy in percent, with their mean.

    That of detection is the mean over normal and defective images, as MMAD has it, since most images are of one kind.
    """
    by_type: dict[str, list[Choice]] = defaultdict(list)
    for choice in choices:
        by_type[choice.question.type].append(choice)
    found = {kind: _rates(kind, by_type[kind]) for kind in sorted(by_type)}
    known = [rates["accuracy"] for rates in found.values() if rates["accuracy"] is not None]
    total = {key: sum(rates[key] for rates in found.values()) for key in ("n", "unreadable")}
    return found | {"mean": {**total, "accuracy": sum(known) / len(known) if known else None}}


def _rates(kind: str, choices: Sequence[Choice]) -> dict[str, Any]:
    groups = [[c for c in choices if c.question.sample.anomalous is label] for label in (False, True)] if kind == DETECTION else [choices]
    shares = [percent(sum(choice.right for choice in group), len(group)) for group in groups]
    known = [share for share in shares if share is not None]
    return {
        "n": len(choices),
        "unreadable": sum(choice.letter is None for choice in choices),
        "accuracy": sum(known) / len(known) if known else None,
    }


def _bare(text: str) -> str:
    return text.strip(" \t\r\n.*\"'").casefold()
