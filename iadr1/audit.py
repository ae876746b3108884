"""What is unfit in a folder of data, each with its file and the reason: `iadr1 data audit FOLDER`.

Nothing is changed. An `error` stops training or spoils what it is judged on, a `warning` asks for a look, a `note` says what was handled.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Literal

from iadr1.datasets import IMAGES, LAYOUTS, faults_of, listed, split_of
from iadr1.datasets.folders import folders_in, json_of, rows
from iadr1.datasets.readers import hidden_parts
from iadr1.datasets.totals import differences
from iadr1.errors import DatasetError
from iadr1.look_alikes import candidates, detail, is_same
from iadr1.masks import read_image
from iadr1.picture_facts import Facts, facts_of
from iadr1.samples import Sample

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
LONG = 260  # characters: what other systems and archives still take
TABLES = {  # columns that the readers need, by the name of the file
    "manifest.csv": ("path", "group"),
    "1cls.csv": ("object", "split", "label", "image", "mask"),
    "image_anno.csv": ("image", "label"),
}
KINDS: dict[str, tuple[Severity, str]] = {
    "layout": ("error", "the layout finds no images, or cannot read the annotation"),
    "same-name": ("error", "images with the same name but for the ending"),
    "missing-file": ("error", "files that an annotation names are missing"),
    "missing-mask": ("error", "defective images without their mask"),
    "unreadable": ("error", "files or folders that cannot be opened, and links to nothing"),
    "empty-file": ("error", "files of 0 bytes"),
    "corrupt": ("error", "images that cannot be decoded"),
    "truncated": ("error", "images that end early"),
    "animated": ("error", "files with several pictures: which one shows the part is not known"),
    "too-large": ("error", "images so large that decoding them would fill the memory"),
    "blank": ("error", "images whose every pixel is the same"),
    "mask-size": ("error", "masks of another size than their image"),
    "mask-empty": ("error", "masks of defective images that mark nothing"),
    "duplicate-label": ("error", "the same picture is normal here and defective there"),
    "duplicate-split": ("error", "the same picture is in training and in a test"),
    "duplicate-category": ("error", "the same picture is in two categories"),
    "json": ("error", "JSON that cannot be read or is too large"),
    "csv": ("error", "CSV without a column or a value that the readers need"),
    "link-outside": ("warning", "links that leave the folder: a copy of it lacks what they point to"),
    "link-loop": ("warning", "links that lead back to a folder above them; not followed"),
    "mask-values": ("warning", "masks with more than two values: everything but 0 is read as defect"),
    "mask-whole": ("warning", "masks that mark every pixel: are they inverted?"),
    "duplicate": ("warning", "the same picture several times"),
    "near-duplicate": ("warning", "a training and a test image that are one picture in two files"),
    "hidden-defect": ("warning", "defective parts whose defect no view shows"),
    "count": ("warning", "other counts than the public data set has"),
    "unused": ("note", "images that the layout does not use"),
    "no-mask": ("note", "defective images of a type without masks: location and visibility stay unknown"),
    "16-bit": ("note", "brought to 8 bits"),
    "cmyk": ("note", "converted to RGB"),
    "alpha": ("note", "transparency laid on white"),
    "palette": ("note", "colours looked up"),
    "exif-rotated": ("note", "turned upright; its mask has to fit the upright picture"),
    "non-ascii": ("note", "paths with letters beyond ASCII"),
    "long-path": ("note", f"paths of more than {LONG} characters"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing in one file, and why."""

    kind: str
    file: str
    reason: str

    @property
    def severity(self) -> Severity:
        """How bad findings of this kind are."""
        return KINDS[self.kind][0]


@dataclass(frozen=True, slots=True)
class Audit:
    """All findings, and how many data sets, samples and files were looked at."""

    findings: tuple[Finding, ...]
    datasets: tuple[str, ...]
    samples: int
    files: int

    @property
    def stops(self) -> bool:
        """Whether something would stop training."""
        return any(finding.severity == "error" for finding in self.findings)


def audited(folders: Sequence[Path], *, layout: str) -> Audit:
    """Everything unfit in folders that are data sets of a layout, or hold such data sets."""
    findings: list[Finding] = []
    files = [path for folder in folders for path in _walked(folder, findings)]
    findings += chain.from_iterable(map(_path_findings, files))
    findings += [finding for path in files if (finding := _table_finding(path))]
    datasets = [dataset for folder in folders for dataset in _datasets(folder, layout)]
    samples = [sample for root in datasets for sample in _listed(root, layout, findings)]
    masks = {sample.mask for sample in samples if sample.mask}
    pictures = [path for path in files if path.suffix.lower() in IMAGES]
    with ThreadPoolExecutor() as pool:
        read = partial(_facts, masks=masks)
        facts = dict(zip(map(_text, pictures), pool.map(read, pictures), strict=True))
    used = masks | {path for sample in samples for path in sample.images}
    findings += [Finding("unused", path, "no sample has it") for path in facts if path not in used]
    findings += chain.from_iterable(_file_findings(path, fact) for path, fact in facts.items())
    findings += chain.from_iterable(_mask_findings(sample, facts) for sample in samples)
    findings += chain(_duplicates(samples, facts), _near_duplicates(samples, facts))
    return Audit(tuple(sorted(findings, key=_order)), tuple(map(_text, datasets)), len(samples), len(files))


def _order(finding: Finding) -> tuple[int, str]:
    return list(KINDS).index(finding.kind), finding.file


def _text(path: Path) -> str:
    # A name need not be UTF-8; what is told has to be.
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _facts(path: Path, masks: set[str]) -> Facts:
    return facts_of(path, mask=_text(path) in masks)


def _walked(root: Path, findings: list[Finding]) -> Iterator[Path]:
    """Every file below a folder, hidden ones left out, linked folders included but for loops; what cannot be entered is a finding."""

    def refused(error: OSError) -> None:
        findings.append(Finding("unreadable", _text(Path(error.filename)), str(error.strerror)))

    home = os.path.realpath(root)
    trails = {str(root): frozenset({home})}  # a folder as it was reached -> the true places on the way to it
    for here, folders, files in os.walk(root, followlinks=True, onerror=refused):
        trail = trails.pop(here)
        findings += chain.from_iterable(_link_findings(Path(here, name), trail, home) for name in [*folders, *files])
        places = {name: os.path.realpath(Path(here, name)) for name in sorted(folders) if not name.startswith(".")}
        folders[:] = [name for name, place in places.items() if place not in trail]
        trails |= {os.path.join(here, name): trail | {places[name]} for name in folders}
        yield from (Path(here, name) for name in sorted(files) if not name.startswith(".") and Path(here, name).exists())


def _link_findings(path: Path, trail: frozenset[str], home: str) -> Iterator[Finding]:
    if not path.is_symlink():
        return
    target = os.path.realpath(path)
    if target in trail:
        yield Finding("link-loop", _text(path), f"leads to {target}")
    elif not path.exists():
        yield Finding("unreadable", _text(path), f"a link to {target}, which is not there")
    elif not Path(target).is_relative_to(home):
        yield Finding("link-outside", _text(path), f"leads to {target}")


def _path_findings(path: Path) -> Iterator[Finding]:
    text = path.as_posix()
    if not text.isascii():
        yield Finding("non-ascii", _text(path), "read as it is")
    if len(text) > LONG:
        yield Finding("long-path", _text(path), f"{len(text)} characters")


def _table_finding(path: Path) -> Finding | None:
    try:
        if path.suffix.lower() == ".json":
            json_of(path)
        elif path.name in TABLES:
            for _ in rows(path, TABLES[path.name]):
                pass
    except DatasetError as error:
        return Finding("json" if path.suffix.lower() == ".json" else "csv", _text(path), str(error).removeprefix(f"{path}: "))
    except OSError as error:
        return Finding("unreadable", _text(path), str(error.strerror))
    return None


def _datasets(folder: Path, layout: str) -> list[Path]:
    """The folder itself where its layout finds samples there, else the folders in it that do; the folder itself where none does."""
    if _has_samples(folder, layout):
        return [folder]
    return [place for place in folders_in(folder) if _has_samples(place, layout)] or [folder]


def _has_samples(root: Path, layout: str) -> bool:
    try:
        return bool(LAYOUTS[layout](root, root.name))
    except (DatasetError, OSError):
        return True  # it is one, but a broken one


def _listed(root: Path, layout: str, findings: list[Finding]) -> list[Sample]:
    name = root.resolve().name
    try:
        samples = listed(layout, root, name)
        hidden = hidden_parts(root, name) if layout == "real_iad" else []
    except DatasetError as error:
        findings.append(Finding("layout", _text(root), str(error)))
        return []
    if not samples:
        findings.append(Finding("layout", _text(root), f"no images where layout {layout} expects them ({LAYOUTS[layout].__doc__})"))
    findings += [Finding(fault.kind, place, fault.do) for fault in faults_of(samples) for place in fault.found]
    findings += [Finding("hidden-defect", part, "none of its views has a mask") for part in hidden]
    findings += [Finding("count", _text(root), line) for line in differences(layout, samples)]
    findings += [Finding("no-mask", sample.images[-1], sample.id) for sample in samples if sample.anomalous and not sample.mask]
    return samples


def _file_findings(path: str, facts: Facts) -> Iterator[Finding]:
    if facts.fault:
        yield Finding(facts.fault[0], path, facts.fault[1])
    if facts.blank:
        yield Finding("blank", path, f"{facts.size[0]}x{facts.size[1]} pixels of one colour")
    for trait in facts.traits:
        yield Finding(trait, path, KINDS[trait][1])


def _mask_findings(sample: Sample, facts: Mapping[str, Facts]) -> Iterator[Finding]:
    mask, image = facts.get(sample.mask or ""), facts.get(sample.images[-1])
    if mask is None or mask.fault:
        return
    if image and not image.fault and image.size != mask.size:
        yield Finding("mask-size", str(sample.mask), f"{_size(mask)} pixels, its image {_size(image)}")
    if not mask.marked:
        yield Finding("mask-empty", str(sample.mask), f"every pixel is 0, but {sample.images[-1]} is defective")
    elif mask.marked == 1:
        yield Finding("mask-whole", str(sample.mask), "marks every pixel")
    if len(mask.values) > 2:
        yield Finding("mask-values", str(sample.mask), f"its lowest values are {', '.join(map(str, mask.values))}")


def _size(facts: Facts) -> str:
    return f"{facts.size[0]}x{facts.size[1]}"


def _duplicates(samples: Iterable[Sample], facts: Mapping[str, Facts]) -> Iterator[Finding]:
    """The same bytes under several names, by the worst that follows from it; the first name is the one to compare with."""
    same = defaultdict[str, list[Sample]](list)
    for sample in samples:
        fact = facts.get(sample.images[-1])
        if fact and fact.sha256:
            same[fact.sha256].append(sample)
    for group in same.values():
        first = group[0]
        for other in group[1:]:
            yield Finding(_duplicate_kind(first, other), other.images[-1], f"the same as {first.images[-1]}")


def _duplicate_kind(one: Sample, other: Sample) -> str:
    if one.anomalous != other.anomalous:
        return "duplicate-label"
    if split_of(one) != split_of(other):
        return "duplicate-split"
    return "duplicate" if (one.dataset, one.category) == (other.dataset, other.category) else "duplicate-category"


def _near_duplicates(samples: Iterable[Sample], facts: Mapping[str, Facts]) -> Iterator[Finding]:
    parts = defaultdict[tuple[str, str], dict[str, list[Sample]]](lambda: {"train": [], "test": []})
    for sample in samples:
        fact = facts.get(sample.images[-1])
        if fact and fact.perceptual and not fact.blank:
            parts[sample.dataset, sample.category].setdefault(split_of(sample), []).append(sample)
    details = cache(lambda path: detail(read_image(path)))
    for part in parts.values():
        test, train = ([sample.images[-1] for sample in part[split]] for split in ("test", "train"))
        for one, other in candidates([facts[path].perceptual for path in test], [facts[path].perceptual for path in train]):
            first, second = test[one], train[other]
            if facts[first].sha256 != facts[second].sha256 and is_same(details(first), details(second)):
                yield Finding("near-duplicate", first, f"the picture of {second} in another file")


def told(audit: Audit, *, named: int) -> Iterator[str]:
    """The audit in lines: each kind with its count and its first files, the worst first."""
    counts = Counter(finding.kind for finding in audit.findings)
    for severity in SEVERITIES:
        for kind in (kind for kind in KINDS if counts[kind] and KINDS[kind][0] == severity):
            yield f"{severity:8}{kind:19}{counts[kind]:7,}  {KINDS[kind][1]}"
            found = [finding for finding in audit.findings if finding.kind == kind]
            yield from (f"    {finding.file}: {finding.reason}" for finding in found[:named])
            if len(found) > named:
                yield f"    … and {len(found) - named:,} more"
    worst = Counter(finding.severity for finding in audit.findings)
    sums = ", ".join(f"{worst[severity]:,} {severity}s" for severity in SEVERITIES)
    yield f"{audit.files:,} files, {audit.samples:,} samples in {len(audit.datasets)} data sets: {sums}."
