"""What a model says of one image, as a person and a program read it: behind `iadr1 inspect` and the registered model."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from iadr1 import prompts
from iadr1.engines import Engine, Generated
from iadr1.errors import DatasetError
from iadr1.images import open_image
from iadr1.locations import cells
from iadr1.samples import Sample
from iadr1.verdict import Status, Verdict

GOOD, ERROR, DEFECT = 0, 1, 10
# Answers come in parts of so many images: a killed run of a large folder has told what it knew.
PART = 64

Cell = tuple[int, int]
Answer = Literal["Yes", "No"] | None
ANSWERS: dict[bool | None, Answer] = {True: "Yes", False: "No", None: None}


@dataclass(frozen=True, slots=True)
class Inspection:
    """One image inspected by one model; `iadr1/schemas/inspection.json` is this as JSON."""

    image: Annotated[str, Field(description="the image's path as it was given; its number, from 0, where it came over the network")]
    answer: Annotated[
        Literal["Yes", "No"] | None, Field(description="is there a defect? null where no clear answer can be read: never good")
    ]
    p_yes: Annotated[float | None, Field(ge=0, le=1, description="the probability of Yes against No; null where the engine does not tell")]
    location: Annotated[str | None, Field(description="where the defect is, in the model's words")]
    cells: Annotated[tuple[Cell, ...], Field(description="(row, column) from the top left, of a grid of `grid` cells a side")]
    grid: Annotated[int, Field(ge=1, le=5)]
    type: Annotated[str | None, Field(description="what kind of defect, in the model's words")]
    reasoning: str | None
    status: Annotated[Status | None, Field(description="how the text was read (docs/inspect.md); null where the image could not be shown")]
    text: Annotated[str, Field(description="the model's answer, word for word")]
    seconds: Annotated[
        float | None, Field(ge=0, description="from asking to the answer; images answered in one batch have waited for the same one")
    ]
    error: Annotated[str | None, Field(description="why there is no answer")]

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


def schema_text() -> str:
    """The JSON Schema of an inspection."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "inspection"}
    return json.dumps(head | _adapter().json_schema(mode="serialization"), indent=1) + "\n"


@cache
def _adapter() -> Any:
    return TypeAdapter(Inspection)


def exit_code(found: Sequence[Inspection]) -> int:
    """10 when a defect was found, else 1 when an image has no answer, else 0."""
    if any(one.answer == "Yes" for one in found):
        return DEFECT
    return ERROR if not found or any(one.error for one in found) else GOOD


def inspections(
    engine: Engine,
    images: Sequence[str],
    *,
    references: Sequence[str] = (),
    grid: int = 3,
    done: Callable[[int], object] = lambda count: None,
) -> Iterator[Inspection]:
    """An inspection of each image, in order, each beside the same references; an image that cannot be read has an error instead of an answer.

    Raises DatasetError where a reference cannot be read.
    """
    for reference in references:
        if fault := fault_of(reference):
            raise DatasetError(f"{reference}: {fault}. Give another --reference.")
    for at in range(0, len(images), PART):
        yield from _part(engine, images[at : at + PART], references, grid, done)


def inspection(image: str, answer: Generated, *, grid: int) -> Inspection:
    """What a model's answer says."""
    verdict = Verdict.parse(answer.text, truncated=answer.truncated)
    said = ANSWERS[verdict.anomalous]
    place = cells(verdict.location, grid) if verdict.location and verdict.anomalous else None
    error = None if said else f"the answer cannot be read ({verdict.status}): {answer.text[:200] or 'an empty text'}"
    return Inspection(
        image, said, answer.p_yes, verdict.location, tuple(sorted(place or ())), grid, verdict.type, verdict.reasoning,
        verdict.status, answer.text, answer.seconds, error,
    )  # fmt: skip


def fault_of(path: str) -> str | None:
    """Why an image cannot be shown to a model; None where it can."""
    if not Path(path).is_file():
        return "no such file"
    try:
        open_image(path)
    except DatasetError as error:
        return f"cannot be read as an image ({error.__cause__})" if error.__cause__ else str(error).removeprefix(f"{path}: ").rstrip(".")
    return None


def _part(
    engine: Engine, images: Sequence[str], references: Sequence[str], grid: int, done: Callable[[int], object]
) -> Iterator[Inspection]:
    faults = {image: fault for image in images if (fault := fault_of(image))}
    done(len(faults))
    shown = [image for image in images if image not in faults]
    answers = iter(engine([_chat(image, references) for image in shown], done)) if shown else iter(())
    for image in images:
        yield failed(image, faults[image], grid) if image in faults else inspection(image, next(answers), grid=grid)


def failed(image: str, fault: str, grid: int) -> Inspection:
    """An image that no model has seen."""
    return Inspection(image, None, None, None, (), grid, None, None, None, "", None, fault)


def _chat(image: str, references: Sequence[str]) -> list[prompts.Message]:
    sample = Sample(image, "", "", (image,), anomalous=False, references=tuple(references))
    return prompts.messages(sample, shots=len(references))
