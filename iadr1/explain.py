"""How one text is read and scored, step by step, as lines for a person. Try `iadr1 explain "TEXT" --solution "<answer>No</answer>"`."""

from collections.abc import Iterator

from iadr1.agreement import conclusion
from iadr1.defect_types import read_type
from iadr1.locations import cells
from iadr1.locations import words as location_words
from iadr1.rewards import PRESETS, sample_of_solution, score
from iadr1.samples import Sample
from iadr1.verdict import Verdict

_MEANING = {
    "ok": "well formed, and the answer is the one of its pattern",
    "malformed": "an answer can be read, but the form is wrong",
    "ambiguous": "yes and no are both given, or one of several answers cannot be read",
    "truncated": "the text stops before an answer",
    "unreadable": "no answer block that says yes or no",
}


def explanation(text: str, *, solution: str | None = None, free: bool = False, grid: int = 3) -> Iterator[str]:
    """The reading of a text and, with a solution, its rewards under every preset."""
    verdict = Verdict.read(text) if free else Verdict.parse(text)
    yield f"status     {verdict.status}: {_MEANING[verdict.status]}"
    yield f"answer     {_answer(verdict.anomalous)}"
    yield f"pattern    {verdict.pattern or 'neither the normal nor the anomalous one'}"
    yield from _evidence(verdict, grid)
    if solution is not None:
        yield from _rewards(text, sample_of_solution(solution), grid)


def _evidence(verdict: Verdict, grid: int) -> Iterator[str]:
    if verdict.reasoning is not None:
        concluded = conclusion(verdict.reasoning)
        agrees = (
            ""
            if concluded is None or verdict.anomalous is None
            else ", as the answer"
            if concluded is verdict.anomalous
            else ", against the answer"
        )
        yield f"reasoning  {len(verdict.reasoning.split())} words; concludes {_conclusion(concluded)}{agrees}"
    if verdict.location is not None:
        found = cells(verdict.location, grid)
        yield f"location   {verdict.location!r} is " + (f"{location_words(found, grid)} on a {grid} x {grid} grid" if found else "no place")
    if verdict.type is not None:
        kinds = sorted(f"{kind.fine} ({kind.coarse}, {kind.group})" for kind in read_type(verdict.type).kinds)
        yield f"type       {verdict.type!r} is " + (", ".join(kinds) or "no known type")


def _rewards(text: str, sample: Sample, grid: int) -> Iterator[str]:
    yield f"solution   {_answer(sample.anomalous)}, {sample.location or 'no location'}, {sample.type or 'no type'}"
    yield "preset     consistency  accuracy  location  type  total"
    for name in PRESETS:
        found = score(text, sample, preset=name, grid=grid)
        consistency, accuracy, location, kind = map(_points, found[:4])
        yield f"{name:11}{consistency:>11}  {accuracy:>8}  {location:>8}  {kind:>4}  {found.total:>5.2f}"


def _answer(anomalous: bool | None) -> str:
    return {True: "Yes, there is a defect", False: "No, there is none", None: "neither yes nor no"}[anomalous]


def _conclusion(concluded: bool | None) -> str:
    return {True: "that there is a fault", False: "that there is none", None: "nothing that can be read"}[concluded]


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
