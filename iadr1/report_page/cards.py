"""The gallery: one card for each image with every answer to it, and what is wrong with each answer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from iadr1.defect_types import CATEGORY, type_score
from iadr1.locations import cells
from iadr1.report import Prediction
from iadr1.report_page.pictures import Picture, Views, pictures
from iadr1.samples import Sample
from iadr1.verdict import Verdict

KINDS = {
    "miss": "miss",
    "false_alarm": "false alarm",
    "wrong_place": "wrong place",
    "wrong_type": "wrong type",
    "unreadable": "unreadable",
    "right": "right",
}
CARDS = 10_000
PICTURES = 2_000


@dataclass(frozen=True, slots=True)
class Gallery:
    """Cards as plain values, and how many images there were and how many of the cards have a picture."""

    cards: Sequence[Mapping[str, Any]]
    images: int
    shown: int


def gallery(predictions: Iterable[Prediction], samples: Iterable[Sample], models: Sequence[str], *, grid: int) -> Gallery:
    """The cards in order of data set, product and name; where there are too many for a page, images that every model gets right are left out first."""
    answers: dict[tuple[str, str], list[Prediction]] = {}
    for prediction in predictions:
        answers.setdefault((prediction.dataset, prediction.sample_id), []).append(prediction)
    chosen = _failures_first(answers)
    by_id = {sample.id: sample for sample in samples}
    drawn = pictures([by_id[name] for _, name in chosen if name in by_id][:PICTURES])
    kept = sorted(chosen[:CARDS], key=lambda key: (key[0], answers[key][0].category, key[1]))
    return Gallery([_card(answers[key], drawn.get(key[1]), models, grid) for key in kept], len(answers), len(drawn))


def kinds(prediction: Prediction, verdict: Verdict, *, grid: int) -> list[str]:
    """What is wrong with an answer, as the report counts it: place and type of a tuned model that has found the defect may both be wrong."""
    if verdict.anomalous is None:
        return ["unreadable"]
    if verdict.anomalous is not prediction.anomalous:
        return ["miss" if prediction.anomalous else "false_alarm"]
    if not prediction.anomalous or prediction.reader == "free":
        return ["right"]
    expected = cells(prediction.location, grid) if prediction.location else None
    place = expected is None or (verdict.location is not None and cells(verdict.location, grid) == expected)
    kind = not prediction.type or (verdict.type is not None and type_score(verdict.type, prediction.type) >= CATEGORY)
    return [name for name, fine in (("wrong_place", place), ("wrong_type", kind)) if not fine] or ["right"]


def _failures_first(answers: Mapping[tuple[str, str], Sequence[Prediction]]) -> list[tuple[str, str]]:
    """Images that some model gets wrong first, data sets in turn, so that a limit cuts none of them off."""
    turns: dict[tuple[str, bool], int] = {}
    ranked = []
    for key, found in answers.items():
        right = all(prediction.verdict.anomalous is prediction.anomalous for prediction in found)
        turns[key[0], right] = turns.get((key[0], right), 0) + 1
        ranked.append((right, turns[key[0], right], key))
    return [key for *_, key in sorted(ranked)]


def _card(found: Sequence[Prediction], views: Views | None, models: Sequence[str], grid: int) -> dict[str, Any]:
    first = found[0]
    ordered = sorted(found, key=lambda prediction: (models.index(prediction.model), prediction.seed))
    return {
        "id": first.sample_id,
        "dataset": first.dataset,
        "product": first.category,
        "defect": first.anomalous,
        **_known({"location": first.location, "type": first.type, "cells": _cells(first.location, grid)}),
        **_known({"picture": views and _picture(views.whole), "near": views and views.near and _picture(views.near)}),
        "answers": [_answer(prediction, models, grid) for prediction in ordered],
    }


def _picture(picture: Picture) -> dict[str, Any]:
    return _known(asdict(picture))


def _answer(prediction: Prediction, models: Sequence[str], grid: int) -> dict[str, Any]:
    verdict, free = prediction.verdict, prediction.reader == "free"
    # A base model's free text is its reasoning; of tags the words themselves stand where the parts do not say all of them.
    said = None if free else verdict.reasoning
    read = {"location": verdict.location, "type": verdict.type, "reasoning": said, "cells": _cells(verdict.location, grid)}
    words = None if not free and verdict.status == "ok" and verdict.render() == prediction.text else prediction.text
    return {
        "model": models.index(prediction.model),
        "seed": prediction.seed,
        "says": verdict.anomalous,
        "kinds": kinds(prediction, verdict, grid=grid),
        "status": verdict.status,
        **_known(read | {"text": words, "tokens": prediction.tokens or None, "p_yes": prediction.p_yes}),
    }


def _cells(words: str | None, grid: int) -> list[list[int]] | None:
    """Rows and columns of the cells that words name."""
    found = cells(words, grid) if words else None
    return None if found is None else sorted([row, column] for row, column in found)


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
