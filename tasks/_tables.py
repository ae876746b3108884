"""The tables that `validate` judges: a row for each file of the raw data, and for each sample with what its image and mask files say."""

import functools
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from iadr1 import defect_types, locations, prompts
from iadr1.errors import DatasetError
from iadr1.expert_ad import gates
from iadr1.images import content_hash
from iadr1.known_errors import known_error
from iadr1.look_alikes import candidates, detail, is_same, perceptual_hash
from iadr1.masks import read_image, read_mask
from iadr1.samples import Sample
from iadr1.splits import category_of, physical_of
from iadr1.verdict import Verdict
from tasks._manifest import Entry, files_below, read_manifest
from tasks._parallel import each

RAW = "raw"
TRAINING = ("pa_sft", "sc_grpo", "validation")
LONGEST = 255  # bytes that every common file system allows in a name

Table = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the files of a sample are: the hashes of its image, and a problem in words where there is one."""

    sha256: str | None = None
    perceptual: bytes | None = None
    image_problem: str | None = None
    mask_problem: str | None = None
    reference_problem: str | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all tables together say: where each physical sample, image and look-alike is, whose image a path is, whose reference.

    And the layout of each data set.
    """

    parts: Mapping[str, set[str]]
    images: Mapping[str, set[str]]
    alike: Mapping[str, set[str]]
    shown: Mapping[str, tuple[str, Sample]]
    owners: Mapping[str, set[str]]
    layouts: Mapping[str, str]


def listing(fetched: Path) -> Table:
    """A row for each file of the raw data: those of a manifest, or those below a folder, which are not opened."""
    if not fetched.exists():
        raise DatasetError(f"{fetched}: no such file. Run `dvc repro fetch` to make it.")
    if fetched.is_file():
        return _listed(read_manifest(fetched))
    return _listed([Entry(path.relative_to(fetched).as_posix(), path.stat().st_size, "") for path in sorted(files_below(fetched))])


def _listed(entries: Sequence[Entry]) -> Table:
    alike = Counter(_folded(entry.path) for entry in entries)
    return [
        {
            "id": entry.path,
            "bytes": entry.bytes,
            "name_problem": _name_problem(entry.path, is_alone=alike[_folded(entry.path)] == 1),
        }
        for entry in entries
    ]


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _name_problem(path: str, *, is_alone: bool) -> str | None:
    if not path.isprintable():
        return "has characters that cannot be shown"
    if max(len(name.encode()) for name in path.split("/")) > LONGEST:
        return f"has a name of more than {LONGEST} bytes"
    return None if is_alone else "differs from another in upper and lower case only"


def tables(samples: Mapping[str, Sequence[Sample]], *, grid: int, layouts: Mapping[str, str]) -> dict[str, Table]:
    """A table for each part and test set; a fault that a check looks for is a column that is empty in a sound row.

    `layouts` says in which layout each data set is, and so which errors of it are known.
    """
    schema = {(name, place): _schema_problem(sample) for name, rows in samples.items() for place, sample in enumerate(rows)}
    flat = [(name, sample) for name, rows in samples.items() for place, sample in enumerate(rows) if not schema[name, place]]
    read = each(facts_of, [sample for _, sample in flat], doing="reading images")
    facts = {(name, sample.id): found for (name, sample), found in zip(flat, read, strict=True)}
    around = _surroundings(flat, facts, layouts)
    return {
        name: [
            {**_blank(), "id": str(sample.id), "schema_problem": schema[name, place]}
            if schema[name, place]
            else _row(name, sample, facts[name, sample.id], around, grid=grid)
            for place, sample in enumerate(rows)
        ]
        for name, rows in samples.items()
    }


@functools.cache
def _schema() -> TypeAdapter[Sample]:
    return TypeAdapter(Sample)


def _schema_problem(sample: Sample) -> str | None:
    """The first field that is of another type than `Sample` says."""
    try:
        _schema().validate_json(sample.to_json(), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}; found {problem['input']!r}"
    return None if sample.images else "images: is empty"


def _surroundings(flat: Sequence[tuple[str, Sample]], facts: Mapping[tuple[str, str], Facts], layouts: Mapping[str, str]) -> Surroundings:
    parts, images, owners = (defaultdict[str, set[str]](set) for _ in range(3))
    for name, sample in flat:
        parts[physical_of(sample)].add(name)
        images[facts[name, sample.id].sha256 or ""].add(name)
        for path in sample.references:
            owners[path].add(category_of(sample))
    alike = _alike([(name, sample, facts[name, sample.id]) for name, sample in flat])
    shown = {sample.images[-1]: (name, sample) for name, sample in flat}
    return Surroundings(parts, images, alike, shown, owners, layouts)


def _alike(flat: Sequence[tuple[str, Sample, Facts]]) -> dict[str, set[str]]:
    """The SHA-256 of images of the training that are the picture of a test image in another file, and of those, with where the other is."""
    train, tests = ([row for row in flat if (row[0] in TRAINING) is side and row[2].perceptual] for side in (True, False))
    pairs = candidates(*([facts.perceptual or b"" for _, _, facts in rows] for rows in (train, tests)))
    details = functools.cache(lambda path: detail(read_image(path)))
    found = defaultdict[str, set[str]](set)
    for (part, seen, one), (test, judged, other) in ((train[one], tests[other]) for one, other in pairs):
        if one.sha256 != other.sha256 and is_same(details(seen.images[-1]), details(judged.images[-1])):
            found[str(one.sha256)].add(test)
            found[str(other.sha256)].add(part)
    return dict(found)


def facts_of(sample: Sample) -> Facts:
    """Read the files of a sample."""
    path = Path(sample.images[-1])
    try:
        image = read_image(path)
    except DatasetError as error:
        return Facts(image_problem=str(error))
    sha256 = content_hash(path)
    is_blank = image.min() == image.max()
    return Facts(
        sha256=sha256,
        perceptual=None if is_blank else perceptual_hash(image),
        image_problem=f"{path}: every pixel is the same" if is_blank else None,
        mask_problem=_mask_problem(sample, image.shape[:2]),
        reference_problem=_reference_problem(sample, sha256),
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


def _reference_problem(sample: Sample, sha256: str) -> str | None:
    missing = [path for path in sample.references if not Path(path).is_file()]
    if missing:
        return f"no file {missing[0]}"
    size = Path(sample.images[-1]).stat().st_size
    same = (Path(path) for path in sample.references if Path(path).stat().st_size == size)
    itself = any(content_hash(path) == sha256 for path in same)
    return "is its own reference" if itself else None


def _row(name: str, sample: Sample, facts: Facts, around: Surroundings, *, grid: int) -> dict[str, Any]:
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
        "schema_problem": None,
        "image_problem": facts.image_problem,
        "mask_problem": facts.mask_problem,
        "reference_problem": facts.reference_problem or _strange_reference(name, sample, around),
        "annotation_problem": _annotation_problem(sample, grid),
        "target_problem": _target_problem(sample),
        "chain_problem": _chain_problem(sample, grid),
        "known_error": known_error(around.layouts.get(sample.dataset, ""), sample.id),
        # Where training could see what it is judged on.
        "physical_sample_also_in": _others(name, around.parts[physical_of(sample)]),
        "image_also_in": _others(name, around.images[facts.sha256] if facts.sha256 else set()),
        "look_alike_in": _others(name, around.alike.get(facts.sha256 or "", set())),
    }


@functools.cache
def _blank() -> dict[str, None]:
    """A row whose sample cannot be judged, because its fields are of other types."""
    sample = Sample("", "", "", ("",), False)
    return dict.fromkeys(_row("", sample, Facts(), Surroundings(defaultdict(set), {}, {}, {}, {}, {}), grid=1))


def _strange_reference(name: str, sample: Sample, around: Surroundings) -> str | None:
    """What is wrong with a reference by what the tables know of it: it has to be a normal image of the same product."""
    for path in sample.references:
        where, shown = around.shown.get(path, (name, None))
        if shown and category_of(shown) != category_of(sample):
            return f"{path} shows another product: {category_of(shown)}"
        if shown and shown.anomalous:
            return f"{path} shows a defect"
        if name in TRAINING and where not in TRAINING:
            return f"{path} is an image of {where}"
        if others := around.owners[path] - {category_of(sample)}:
            return f"{path} is also a reference for another product: {min(others)}"
    return None


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
    """What is wrong with the text that PA-SFT would teach, or that SC-GRPO compares with."""
    gold = prompts.gold(sample)
    try:
        text = gold.render()
    except ValueError as error:  # a tag in a chain, location or type
        return str(error)
    verdict = Verdict.parse(text)
    if sample.reasoning and verdict.status != "ok":
        return f"{verdict.status}: {text[:80]}"
    read = (verdict.anomalous, verdict.location, verdict.type)
    return None if read == (gold.anomalous, gold.location, gold.type) else f"says {read}: {text[-80:]}"


def _chain_problem(sample: Sample, grid: int) -> str | None:
    """Where a chain of thought does not go with the tags after it, by the gates that the builder judges it with."""
    if not sample.reasoning:
        return None
    missing = [name for name in ("location", "type") if sample.anomalous and not getattr(sample, name)]
    if missing:
        return f"explains a defect without {' and '.join(missing)}"
    judged = gates.Judged(sample, sample, grid)
    found = (gate(judged) for gate in (gates.reference_mention, gates.label, gates.location, gates.type_))
    return next((reason for reason in found if reason), None)
