"""Teachers of Expert-AD: a teacher is a call from a request to a raw reply. Here are the records, and the teacher that needs no model.

A teacher is asked twice about a pair. `compare` wants a structured comparison of query and reference, with the region highlighted; `distil`
wants that made into the five steps of a chain that speaks of the query alone, and a fine type. Replies are JSON, read at one door: `parse`.
"""

import json
import random
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal, Protocol, TypeVar

from iadr1.expert_ad.chains import steps
from iadr1.expert_ad.pairs import Measures, Pair, measures
from iadr1.images import content_hash
from iadr1.remote.replies import hashed

Step = Literal["compare", "distil"]
Record = TypeVar("Record", "Comparison", "Distilled")

_LINES = re.compile(r"\s*\n\s*")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the first pass says: the query, the reference, what differs between them, where, and how that looks."""

    query: str
    reference: str
    difference: str
    position: str
    appearance: str


@dataclass(frozen=True, slots=True)
class Distilled:
    """What the second pass says: the five steps of a chain, and the fine type ("" for a normal image)."""

    observation: str
    comparison: str
    identification: str
    evaluation: str
    decision: str
    type: str

    @property
    def chain(self) -> str:
        """The five steps as one text."""
        return " ".join((self.observation, self.comparison, self.identification, self.evaluation, self.decision))


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a teacher; `attempt` counts how often it was asked because the reply could not be read."""

    step: Step
    pair: Pair
    comparison: Comparison | None = None
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Reply:
    """A teacher's words as they came, and the tokens that they cost; `refused` when it will not answer this request at all."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    refused: bool = False


class Teacher(Protocol):
    """Answers requests. Raises TeacherError where going on makes no sense.

    `key` is a hash of all that an answer depends on; `expected` are the tokens that request and reply may take.
    """

    @property
    def needs_reference(self) -> bool: ...

    def key(self, request: Request) -> str: ...

    def expected(self, request: Request) -> tuple[int, int]: ...

    def __call__(self, request: Request) -> Reply: ...


def parse(record: type[Record], text: str) -> Record | None:
    """The record that a raw reply holds as JSON, whatever stands around it; None when it holds none that is whole."""
    start, end = text.find("{"), text.rfind("}")
    try:
        found = json.loads(text[start : end + 1]) if 0 <= start < end else None
    except (json.JSONDecodeError, RecursionError):
        return None
    return _record(record, found) if isinstance(found, dict) else None


def _record(record: type[Record], found: Mapping[str, object]) -> Record | None:
    names = [field.name for field in fields(record)]
    values = {name: found.get(name) or "" for name in names}
    texts = {name: _LINES.sub(" ", value).strip() for name, value in values.items() if isinstance(value, str)}
    whole = len(texts) == len(names) and all(texts[name] for name in names if name != "type")
    return record(**texts) if whole else None


@dataclass(frozen=True, slots=True)
class OfflineTeacher:
    """Writes from what the mask measures, the same at every call, and costs nothing; the fine type is the one that is annotated."""

    version: str = "offline-1"  # a new one where the wording changes: old replies no longer answer

    @property
    def needs_reference(self) -> bool:
        """Whether a pair without a reference cannot be described."""
        return False

    def expected(self, request: Request) -> tuple[int, int]:
        """No tokens."""
        return 0, 0

    def key(self, request: Request) -> str:
        """The hash of the sample, its pixels and the version."""
        pair = request.pair
        pixels = [content_hash(path) for path in (pair.image, pair.query.mask) if path]
        return hashed(self.version, request.step, json.loads(pair.query.to_json()), pair.region and asdict(pair.region), pixels)

    def __call__(self, request: Request) -> Reply:
        """The comparison from measurements, or the chain; raises DatasetError for a defect without location, type or mask."""
        pair = request.pair
        if request.step == "compare":
            return Reply(json.dumps(asdict(compared(pair, measures(pair) if pair.query.mask else None)), ensure_ascii=False))
        said = (*steps(pair.query, pair.region), pair.query.type or "")
        return Reply(json.dumps({field.name: text for field, text in zip(fields(Distilled), said, strict=True)}, ensure_ascii=False))


QUERY = ("The query shows a {category}.", "The picture to inspect shows a {category}.", "This is a {category} to be inspected.")
REFERENCE = (
    "The reference shows a {category} without defect.",
    "Beside it stands a good {category}.",
    "The reference is a good {category}.",
)
SAME = (
    "Compared to the reference, nothing differs beyond normal variation.",
    "Compared to the reference, outline and surface are alike.",
    "There is no noticeable anomaly compared to the reference.",
)
DIFFERS = (
    "Compared to the reference, there is a noticeable anomaly {place}: {type}.",
    "Unlike the reference, the query has an anomaly {place}, of the kind {type}.",
    "There is {type} {place} that the reference does not have.",
)
# Where a product has no other normal image.
ALONE = ("No reference is at hand.",)
ALONE_SAME = ("No region stands out.", "Outline and surface are even.")
ALONE_DIFFERS = ("There is a noticeable anomaly {place}: {type}.", "There is an anomaly {place}, of the kind {type}.")
POSITION = (
    "Its centre lies at {across:.0%} of the width from the left and {down:.0%} of the height from the top; it covers {area:.1%} of the picture.",
    "It covers {area:.1%} of the picture, centred {across:.0%} across from the left and {down:.0%} down from the top.",
)
LOOK = (
    "It is {colour} against {surroundings}, {tone}. {form}",
    "{form} Its colour is {colour}, that of its surroundings {surroundings}; it is {tone}.",
)


def compared(pair: Pair, measured: Measures | None) -> Comparison:
    """A truthful comparison in varied words: every figure in it is one of `measured`."""
    chooser, category = random.Random(f"compare {pair.query.id}"), pair.query.category.replace("_", " ").lower()
    query, reference = (chooser.choice(wordings).format(category=category) for wordings in (QUERY, REFERENCE if pair.reference else ALONE))
    if measured is None:
        same = chooser.choice(SAME if pair.reference else ALONE_SAME)
        return Comparison(query, reference, same, "No region stands out.", "Colour and surface are those of a good part.")
    location = pair.query.location or "a place that is not annotated"
    place = location if location.startswith("everywhere") else f"at the {location}"
    look = chooser.choice(LOOK).format(
        colour=measured.colour, surroundings=measured.surroundings, tone=_tone(measured.contrast), form=_form(measured)
    )
    return Comparison(
        query=query,
        reference=reference,
        difference=chooser.choice(DIFFERS if pair.reference else ALONE_DIFFERS).format(
            place=place, type=pair.query.type or "an unnamed kind"
        ),
        position=chooser.choice(POSITION).format(across=measured.across, down=measured.down, area=measured.area),
        appearance=look,
    )


def _tone(levels: float) -> str:
    if abs(levels) < 1:
        return "as bright as its surroundings"
    return f"{abs(levels):.0f} levels of 255 {'darker' if levels < 0 else 'brighter'} than its surroundings"


def _form(measured: Measures) -> str:
    several = f" It is the largest of {measured.pieces} pieces." if measured.pieces > 1 else ""
    if measured.elongation < 1.3:
        return f"It is about as long as wide.{several}"
    return f"It is {measured.elongation:.1f} times as long as wide and runs {_course(measured.angle)}.{several}"


def _course(angle: float) -> str:
    courses = (
        "from left to right",
        "from the lower left to the upper right",
        "from top to bottom",
        "from the upper left to the lower right",
    )
    return courses[round(angle / 45) % 4]
