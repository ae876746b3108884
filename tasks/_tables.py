"""The tables that `validate` judges: a row for each sample, with what its image and mask files say."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iadr1 import defect_types, locations, prompts
from iadr1.errors import DatasetError
from iadr1.masks import read_image, read_mask
from iadr1.samples import Sample
from iadr1.splits import physical_of
from iadr1.verdict import Verdict
from tasks._parallel import each

TRAINING = ("pa_sft", "sc_grpo", "validation")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the files of a sample are: the hash of its image, and a problem in words where there is one."""

    sha256: str | None = None
    image_problem: str | None = None
    mask_problem: str | None = None
    reference_problem: str | None = None


def tables(samples: Mapping[str, Sequence[Sample]], *, grid: int) -> dict[str, list[dict[str, Any]]]:
    """A table for each part and test set; a fault that a check looks for is a column that is empty in a sound row."""
    flat = [(name, sample) for name, rows in samples.items() for sample in rows]
    facts = dict(
        zip(
            ((name, sample.id) for name, sample in flat),
            each(facts_of, [sample for _, sample in flat], doing="reading images"),
            strict=True,
        )
    )
    images, parts = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for name, sample in flat:
        parts[physical_of(sample)].add(name)
        images[facts[name, sample.id].sha256 or ""].add(name)
    return {
        name: [
            _row(sample, facts[name, sample.id], grid=grid)
            | _elsewhere(name, parts[physical_of(sample)], images[facts[name, sample.id].sha256 or name])
            for sample in rows
        ]
        for name, rows in samples.items()
    }


def facts_of(sample: Sample) -> Facts:
    """Read the files of a sample."""
    try:
        image = read_image(sample.images[-1])
    except DatasetError as error:
        return Facts(image_problem=str(error))
    return Facts(
        sha256=hashlib.sha256(Path(sample.images[-1]).read_bytes()).hexdigest(),
        image_problem=f"{sample.images[-1]}: every pixel is the same" if image.min() == image.max() else None,
        mask_problem=_mask_problem(sample, image.shape[:2]),
        reference_problem=_reference_problem(sample),
    )


def _mask_problem(sample: Sample, shape: tuple[int, ...]) -> str | None:
    if sample.mask is None:
        return None
    try:
        mask = read_mask(sample.mask)
    except DatasetError as error:
        return str(error)
    if mask.shape != shape:
        return f"{sample.mask}: {mask.shape[1]}x{mask.shape[0]} pixels, its image {shape[1]}x{shape[0]}"
    return None if mask.any() else f"{sample.mask}: marks nothing"


def _reference_problem(sample: Sample) -> str | None:
    missing = [path for path in sample.references if not Path(path).is_file()]
    if missing:
        return f"no file {missing[0]}"
    return "is its own reference" if sample.images[-1] in sample.references else None


def _row(sample: Sample, facts: Facts, *, grid: int) -> dict[str, Any]:
    return {
        "id": sample.id,
        "dataset": sample.dataset,
        "category": sample.category,
        "anomalous": sample.anomalous,
        "location": sample.location,
        "type": sample.type,
        "reasoning": sample.reasoning,
        "mask": sample.mask,
        "visibility": sample.visibility,
        "sha256": facts.sha256,
        "image_problem": facts.image_problem,
        "mask_problem": facts.mask_problem,
        "reference_problem": facts.reference_problem,
        "annotation_problem": _annotation_problem(sample, grid),
        "target_problem": _target_problem(sample),
        "chain_problem": _chain_problem(sample),
    }


def _elsewhere(name: str, same_part: set[str], same_image: set[str]) -> dict[str, str | None]:
    """Where else the same physical sample, or the same image, is, when that lets training see what it is judged on."""
    return {"physical_sample_also_in": _others(name, same_part), "image_also_in": _others(name, same_image)}


def _others(name: str, found: set[str]) -> str | None:
    others = sorted(other for other in found - {name} if name in TRAINING or other in TRAINING)
    return ", ".join(others) or None


def _annotation_problem(sample: Sample, grid: int) -> str | None:
    if not sample.anomalous:
        known = [word for word in (sample.location, sample.type, sample.mask) if word]
        return f"is normal, but has {known[0]}" if known else None
    if sample.location is not None and locations.cells(sample.location, grid) is None:
        return f"location {sample.location!r} names no place"
    if sample.type is not None and defect_types.coarse(sample.type) is None:
        return f"type {sample.type!r} is not in the taxonomy"
    return None


def _target_problem(sample: Sample) -> str | None:
    """What is wrong with the text that PA-SFT would teach, for a row that has one."""
    if not sample.reasoning:
        return None
    try:
        text = prompts.target(sample)
    except ValueError as error:  # a tag in a chain, location or type
        return str(error)
    verdict = Verdict.parse(text)
    if verdict.status != "ok":
        return f"{verdict.status}: {text[:80]}"
    return None if verdict.anomalous == sample.anomalous else f"says {verdict.anomalous}: {text[-40:]}"


def _chain_problem(sample: Sample) -> str | None:
    """Where a chain of thought does not go with the tags after it."""
    text = (sample.reasoning or "").lower()
    if "reference" in text:
        return "speaks of a reference image"
    if not sample.anomalous or not text:
        return None
    unsaid = [str(word) for word in (sample.location, sample.type) if not word or word.lower() not in text]
    return f"does not name {' and '.join(unsaid)}" if unsaid else None
