"""Predictions from a seeded generator: models of any quality on the same made images, without any model."""

import random
from collections.abc import Iterable
from pathlib import Path

from iadr1.report import Prediction, write_predictions

DATASETS = ("mvtec", "visa")
YES = "<think>A dark line.</think><location>top left</location><type>scratch</type><answer>Yes</answer>"
NO = "<think>Even and clean.</think><answer>No</answer>"


def predictions(
    *,
    skill: float,
    seed: int = 0,
    images: int = 200,
    datasets: Iterable[str] = DATASETS,
    yes: float = 0.5,
    model: str = "sc_grpo",
    **more: object,
) -> list[Prediction]:
    """A model that knows the answer of `skill` of the images and says yes to the share `yes` of the others.

    What is known grows with `skill`: an image that a weaker model of the same seed knows, a stronger one knows too.
    """
    return [one for name in datasets for one in _answers(name, skill, seed, images, yes, model, more)]


def folder(path: Path, found: Iterable[Prediction]) -> str:
    """The predictions as `evaluate` leaves them: a file a data set."""
    rows: dict[str, list[Prediction]] = {}
    for one in found:
        rows.setdefault(one.dataset, []).append(one)
    for name, some in rows.items():
        write_predictions(path / f"{name}-0.jsonl", some)
    return str(path)


def _answers(dataset: str, skill: float, seed: int, images: int, yes: float, model: str, more: dict) -> Iterable[Prediction]:
    drawn = random.Random(f"{dataset} {seed}")
    for number in range(images):
        anomalous, hard, said = number % 2 == 0, drawn.random(), drawn.random() < yes
        answer = anomalous if hard < skill else said
        told = {"visibility": hard, "location": "top left", "type": "scratch"} if anomalous else {}
        kind = f"class{number // 2 % 2}"
        yield Prediction(f"{dataset}/{number}", dataset, kind, model, anomalous, YES if answer else NO, **{**told, **more})
