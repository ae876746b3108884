"""The tables of a report turned for reading: data sets, products and defect types down, models across."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iadr1.report import DatasetReport, EvalReport


@dataclass(frozen=True, slots=True)
class Row:
    """Something that is rated: its images, and the rates of each model, None where a model was not asked."""

    name: str
    images: int
    rates: Sequence[Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Part(Row):
    """A data set with its rows of products and annotated defect types, and the best balanced accuracy of all models."""

    best: float | None
    products: Sequence[Row]
    types: Sequence[Row]


def parts(report: EvalReport, models: Sequence[str]) -> list[Part]:
    """Each data set of a report, in order of name."""
    told = report.to_dict()["models"]
    names = sorted({name for model in told.values() for name in model["datasets"]})
    return [
        _part(name, [told[model]["datasets"].get(name) for model in models], [report.models[model].datasets.get(name) for model in models])
        for name in names
    ]


def _part(name: str, rates: Sequence[Mapping[str, Any] | None], found: Sequence[DatasetReport | None]) -> Part:
    known = [value for row in rates if row and (value := row["balanced_accuracy"]) is not None]
    seeds = max(each.seeds for each in found if each)
    images = max(row["n"] for row in rates if row) // seeds
    products = _rows([row and row["classes"] for row in rates], "n", seeds)
    types = _rows([row and row["types"] for row in rates], "anomalous", seeds)
    return Part(name, images, rates, max(known, default=None), products, types)


def _rows(tables: Sequence[Mapping[str, Any] | None], count: str, seeds: int) -> list[Row]:
    found: Iterable[str] = sorted({name for table in tables if table for name in table})
    columns = {name: [table.get(name) if table else None for table in tables] for name in found}
    return [Row(name, max(row[count] for row in rates if row) // seeds, rates) for name, rates in columns.items()]
