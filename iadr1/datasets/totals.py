"""How many images a public data set is known to have (totals.yaml), compared with what a folder holds: a difference is told, never an error."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from iadr1.samples import Sample

PARTS = ("train normal", "train defective", "test normal", "test defective")
GENERIC = "mvtec"

Counts = Sequence[int | None]


def differences(layout: str, samples: Sequence[Sample]) -> list[str]:
    """Where a listing differs from the nearest known form of its layout, with both numbers; nothing for categories of other names."""
    found = _counted(samples)
    forms = [list(_compared(form, found)) for form in _known().get(layout, []) if _is_of(form, found, layout)]
    return min(forms, key=len, default=[])


def _is_of(form: Mapping[str, Any], found: Mapping[str, Any], layout: str) -> bool:
    """Whether the categories are those of a public set; of a layout that anyone's folder may have, half of them have to be there."""
    shared = len(form["categories"].keys() & found.keys())
    return shared > 0 and (layout != GENERIC or 2 * shared >= len(form["categories"]))


def _compared(form: Mapping[str, Any], found: Mapping[str, Sequence[int]]) -> Iterator[str]:
    name, categories = form["name"], form["categories"]
    missing = [category for category in categories if category not in found]
    if missing:
        yield f"{len(categories) - len(missing)} categories of {name}; it has {len(categories)}, without here: {', '.join(missing)}"
    for category in categories.keys() & found.keys():
        yield from (f"{category}: {line}" for line in _lines(found[category], categories[category] or (), name))
    if not missing:
        whole = [sum(found[category][part] for category in categories) for part in range(len(PARTS))]
        yield from (f"all: {line}" for line in _lines(whole, form.get("total", ()), name))


def _lines(found: Sequence[int], known: Counts, name: str) -> Iterator[str]:
    for part, here, there in zip(PARTS, found, known or [None] * len(PARTS), strict=True):
        if there is not None and here != there:
            yield f"{here:,} {part} images, {there:,} in {name}"


def _counted(samples: Sequence[Sample]) -> dict[str, list[int]]:
    from iadr1.datasets import split_of

    counted = Counter((sample.category, 2 * (split_of(sample) == "test") + sample.anomalous) for sample in samples)
    return {category: [counted[category, part] for part in range(len(PARTS))] for category in {category for category, _ in counted}}


@cache
def _known() -> dict[str, list[dict[str, Any]]]:
    import yaml

    known: dict[str, list[dict[str, Any]]] = yaml.safe_load(files("iadr1.datasets").joinpath("totals.yaml").read_text(encoding="utf-8"))
    return known
