"""From folders of images to annotated samples: what a data set lists, with the location and visibility that its masks give."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from iadr1.datasets import TRAINING_SPLITS, class_of, refuse, samples_of, split_of
from iadr1.datasets.totals import differences
from iadr1.errors import DatasetError
from iadr1.known_errors import known_error
from iadr1.masks import Region, measured
from iadr1.params import Source
from iadr1.samples import Sample
from iadr1.splits import category_of

LOG = logging.getLogger(__name__)
MULTI_VIEW = frozenset({"real_iad"})  # layouts in which a defective part also has views that do not show the defect

Regions = dict[str, Region]
Mapper = Callable[[Callable[[Sample], Any], Sequence[Sample]], Iterable[Any]]


def training_samples(sources: Mapping[str, Source], raw: Path) -> list[Sample]:
    """The samples of data sets that may be trained on; raises DatasetError where there is nothing normal, or nothing defective."""
    samples = [
        sample
        for name, source in sources.items()
        for sample in read(name, source, raw)
        if split_of(sample) in TRAINING_SPLITS[source.layout]
    ]
    refuse_without_normal("prepare.train", samples)
    if not any(sample.anomalous for sample in samples):
        raise DatasetError(
            f"prepare.train: no defective images among {len(samples)} for training in {', '.join(sources)}. "
            "Put defects that may be trained on into CATEGORY/train_defect/TYPE, their masks into CATEGORY/train_defect_ground_truth/TYPE."
        )
    return samples


def read(name: str, source: Source, raw: Path) -> list[Sample]:
    """The samples of a data set with the types that the parameters state; those that they exclude and known errors are left out, and told."""
    samples = samples_of(source.layout, raw / source.folder, name)
    for line in differences(source.layout, samples):
        LOG.warning("warning: %s: %s.", name, line)
    unfit = _unfit(name, source, samples)
    for reason, count in Counter(unfit.values()).items():
        LOG.warning("warning: %s: %d images are left out: %s.", name, count, reason)
    return [
        replace(sample, type=source.types.get(class_of(sample))) if sample.anomalous and sample.type is None else sample
        for sample in samples
        if sample.id not in unfit
    ]


def _unfit(name: str, source: Source, samples: Sequence[Sample]) -> dict[str, str]:
    """Why samples are left out, by id."""
    unknown = sorted(set(source.exclude) - {sample.id for sample in samples})
    refuse(f"{name}: ids to exclude that no image has", unknown, do="Correct `exclude` in the parameters.")
    known = {sample.id: reason for sample in samples if (reason := known_error(source.layout, sample.id))}
    return known | dict.fromkeys(source.exclude, "the parameters exclude them")


def refuse_without_normal(what: str, samples: Sequence[Sample]) -> None:
    """Raise DatasetError that names the categories without a normal image."""
    having = {category_of(sample) for sample in samples if not sample.anomalous}
    lacking = sorted({category_of(sample) for sample in samples} - having)
    refuse(f"{what}: categories without normal images", lacking, do="Add normal images, or remove the categories.")


def annotated(
    samples: Iterable[Sample], *, grid: int, multi_view: frozenset[str], mapper: Mapper = map
) -> tuple[dict[str, Sample], Regions, list[Sample]]:
    """The samples by id, defects measured; the regions of their masks; and the views that do not show the defect of their part.

    Only data sets in `multi_view` may have such views. Raises DatasetError that names all images and masks that cannot be used.
    """
    known = {sample.id: sample for sample in samples}
    masked = [sample for sample in known.values() if sample.mask]
    faults, hidden, regions = list[str](), list[Sample](), Regions()
    for sample, result in zip(masked, mapper(partial(_measured, grid=grid), masked), strict=True):
        if isinstance(result, str):
            faults.append(result)
        elif result is None:
            hidden.append(known.pop(sample.id))
        else:
            known[sample.id], regions[sample.id] = result
    refuse("prepare: images or masks that cannot be used", faults, do="Replace or remove them.")
    empty = [f"{sample.mask}" for sample in hidden if sample.dataset not in multi_view]
    refuse("prepare: masks of defective images that mark nothing", empty, do="Correct the masks, or remove the images.")
    return known, regions, hidden


def multi_view(sources: Mapping[str, Source]) -> frozenset[str]:
    """The data sets whose defective parts also have views that do not show the defect."""
    return frozenset(name for name, source in sources.items() if source.layout in MULTI_VIEW)


def _measured(sample: Sample, grid: int) -> tuple[Sample, Region] | str | None:
    try:
        return measured(sample, grid=grid)
    except DatasetError as error:
        return str(error)
