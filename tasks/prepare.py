"""Prepare: read every data set into samples for training, validation and test, and write chains of thought where they are learned from.

Run it with `python -m tasks.prepare`, or as a stage of `dvc repro`. PA-SFT and validation rows carry a chain, so they take only defects
with a mask and a type; SC-GRPO takes any. No two parts share a physical sample.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from iadr1.datasets import TRAINING_SPLITS, class_of, refuse, samples_of, split_of, with_references
from iadr1.datasets.totals import differences
from iadr1.errors import DatasetError
from iadr1.expert_ad import chain
from iadr1.masks import Region, measured
from iadr1.params import Params, Source
from iadr1.samples import Sample, write_samples
from iadr1.splits import category_of, divided
from tasks._parallel import each
from tasks._run import Workspace, fresh_directory, run_stage

CHAINED = frozenset({"pa_sft", "validation"})  # the parts whose rows carry a chain of thought
MULTI_VIEW = frozenset({"real_iad"})  # layouts in which a defective part also has views that do not show the defect
VISIBILITY = "visibility.json"  # what made data knows exactly: {path below the raw data: visibility}

Regions = dict[str, Region]


def main(params: Params, work: Workspace) -> None:
    """Prepare, and track how many rows of each kind there are."""
    from tasks._tracking import stage_run

    with stage_run(work, "prepare", params) as run:
        run.log_metrics(prepared(params, work))


def prepared(params: Params, work: Workspace) -> dict[str, float]:
    """Write the parts for training and the test sets; returns the number of rows of each kind."""
    train = _training_samples(params, work)
    tests, normal = _test_samples(params, work)
    parts = divided(
        train, rows=_rows_asked(params), annotated_only=CHAINED, anomalous_share=params.prepare.anomalous_share, seed=params.seed
    )
    seen = _visibilities(work.raw)
    chosen = [_with_visibility(sample, work.raw, seen) for samples in (*parts.values(), *tests.values()) for sample in samples]
    annotated, regions = _annotated(chosen, params)
    parts = {part: _training_rows(part, _kept(samples, annotated), regions) for part, samples in parts.items()}
    tests = {
        name: [with_references(sample, normal.get(category_of(sample), [])) for sample in _kept(samples, annotated)]
        for name, samples in tests.items()
    }
    with fresh_directory(work.prepared) as folder:
        for part, samples in parts.items():
            write_samples(folder / f"{part}.jsonl", samples)
        for name, samples in tests.items():
            write_samples(folder / "test" / f"{name}.jsonl", samples)
    _tell(parts, tests, _rows_asked(params))
    return {f"{name}_{kind}": count for name, samples in {**parts, **tests}.items() for kind, count in _counts(samples).items()}


def _rows_asked(params: Params) -> dict[str, int]:
    return {"pa_sft": params.prepare.pa_sft_rows, "sc_grpo": params.prepare.sc_grpo_rows, "validation": params.prepare.validation_rows}


def _training_samples(params: Params, work: Workspace) -> list[Sample]:
    samples = [
        sample
        for name, source in params.prepare.train.items()
        for sample in _read(name, source, work)
        if split_of(sample) in TRAINING_SPLITS[source.layout]
    ]
    _refuse_without_normal("prepare.train", samples)
    if not any(sample.anomalous for sample in samples):
        raise DatasetError(
            f"prepare.train: no defective images among {len(samples)} for training in {', '.join(params.prepare.train)}. "
            "Put defects that may be trained on into CATEGORY/train_defect/TYPE, their masks into CATEGORY/train_defect_ground_truth/TYPE."
        )
    return samples


def _test_samples(params: Params, work: Workspace) -> tuple[dict[str, list[Sample]], dict[str, list[Sample]]]:
    """The test samples of each data set, and the normal training images of each category, from which references are drawn."""
    tests: dict[str, list[Sample]] = {}
    normal: dict[str, list[Sample]] = {}
    for name, source in params.evaluate.datasets.items():
        samples = _read(name, source, work)
        tests[name] = [sample for sample in samples if split_of(sample) == "test"]
        if not tests[name]:
            raise DatasetError(f"evaluate.datasets.{name}: no test images in {work.raw / source.folder}. Add them, or remove the data set.")
        for sample in samples:
            if split_of(sample) == "train" and not sample.anomalous:
                normal.setdefault(category_of(sample), []).append(sample)
    _refuse_without_normal("evaluate.datasets", [sample for samples in tests.values() for sample in samples])
    return tests, normal


def _read(name: str, source: Source, work: Workspace) -> list[Sample]:
    """The samples of a data set but for those that the parameters exclude, with the types that the parameters state."""
    samples = samples_of(source.layout, work.raw / source.folder, name)
    for line in differences(source.layout, samples):
        print(f"prepare: warning: {name}: {line}.")
    unknown = sorted(set(source.exclude) - {sample.id for sample in samples})
    refuse(f"{name}: ids to exclude that no image has", unknown, do="Correct `exclude` in the parameters.")
    if source.exclude:
        print(f"prepare: {name}: {len(source.exclude)} images with known errors are excluded.")
    return [
        replace(sample, type=source.types.get(class_of(sample))) if sample.anomalous and sample.type is None else sample
        for sample in samples
        if sample.id not in source.exclude
    ]


def _refuse_without_normal(what: str, samples: Sequence[Sample]) -> None:
    having = {category_of(sample) for sample in samples if not sample.anomalous}
    lacking = sorted({category_of(sample) for sample in samples} - having)
    refuse(f"{what}: categories without normal images", lacking, do="Add normal images, or remove the categories.")


def _visibilities(raw: Path) -> dict[str, float]:
    file = raw / VISIBILITY
    known: dict[str, float] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return known


def _with_visibility(sample: Sample, raw: Path, seen: Mapping[str, float]) -> Sample:
    return replace(sample, visibility=seen.get(Path(sample.images[-1]).relative_to(raw).as_posix())) if seen else sample


def _annotated(samples: Iterable[Sample], params: Params) -> tuple[dict[str, Sample], Regions]:
    """The samples by id, defects measured, and the regions of their masks; all that cannot be read is named before anything is written."""
    annotated = {sample.id: sample for sample in samples}
    masked = [sample for sample in annotated.values() if sample.mask]
    faults, hidden, regions = list[str](), list[Sample](), Regions()
    for sample, result in zip(masked, each(partial(_measured, grid=params.prepare.grid), masked, doing="measuring masks"), strict=True):
        if isinstance(result, str):
            faults.append(result)
        elif result is None:
            hidden.append(annotated.pop(sample.id))
        else:
            annotated[sample.id], regions[sample.id] = result
    refuse("prepare: images or masks that cannot be used", faults, do="Replace or remove them.")
    _refuse_hidden(hidden, params)
    return annotated, regions


def _measured(sample: Sample, grid: int) -> tuple[Sample, Region] | str | None:
    try:
        return measured(sample, grid=grid)
    except DatasetError as error:
        return str(error)


def _refuse_hidden(hidden: Sequence[Sample], params: Params) -> None:
    layouts = {name: source.layout for name, source in (*params.evaluate.datasets.items(), *params.prepare.train.items())}
    empty = [f"{sample.mask}" for sample in hidden if layouts[sample.dataset] not in MULTI_VIEW]
    refuse("prepare: masks of defective images that mark nothing", empty, do="Correct the masks, or remove the images.")
    if hidden:
        print(f"prepare: {len(hidden)} views of defective parts do not show the defect (their mask is empty) and are left out.")


def _kept(samples: Sequence[Sample], annotated: Mapping[str, Sample]) -> list[Sample]:
    return [annotated[sample.id] for sample in samples if sample.id in annotated]


def _training_rows(part: str, samples: Sequence[Sample], regions: Regions) -> list[Sample]:
    """The rows of a part, with chains where they are learned from; references come from the same part, so that parts stay apart."""
    normal: dict[str, list[Sample]] = {}
    for sample in samples:
        if not sample.anomalous:
            normal.setdefault(category_of(sample), []).append(sample)
    rows = [with_references(sample, normal.get(category_of(sample), [])) for sample in samples]
    return [replace(row, reasoning=chain(row, regions.get(row.id))) for row in rows] if part in CHAINED else rows


def _counts(samples: Sequence[Sample]) -> dict[str, int]:
    anomalous = sum(sample.anomalous for sample in samples)
    return {"normal": len(samples) - anomalous, "anomalous": anomalous}


def _tell(parts: Mapping[str, Sequence[Sample]], tests: Mapping[str, Sequence[Sample]], asked: Mapping[str, int]) -> None:
    for name, samples in {**parts, **tests}.items():
        counts = _counts(samples)
        short = (
            f", fewer than the {asked[name]} asked for: the training data holds no more that fit"
            if len(samples) < asked.get(name, 0)
            else ""
        )
        print(f"prepare: {name}: {len(samples)} rows, {counts['normal']} normal and {counts['anomalous']} defective{short}.")


if __name__ == "__main__":
    run_stage("prepare", main)
