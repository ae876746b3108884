"""Prepare: read every data set into samples for training, validation and test; the builder of Expert-AD writes chains where they are learned.

Run it with `python -m tasks.prepare`, or as a stage of `dvc repro`. PA-SFT and validation rows carry a chain, so they take only defects
with a mask and a type; SC-GRPO takes any. No two parts share a physical sample.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from iadr1.datasets import split_of, with_references
from iadr1.datasets.folders import json_of
from iadr1.errors import DatasetError
from iadr1.expert_ad.build import CHAINED, Built, Decide, Mapper, build
from iadr1.expert_ad.endpoint import Endpoint, EndpointTeacher, endpoint_of
from iadr1.expert_ad.replies import Kept, in_threads
from iadr1.expert_ad.review import decisions_of, outdated
from iadr1.expert_ad.sources import annotated, multi_view, read, refuse_without_normal, training_samples
from iadr1.expert_ad.teachers import OfflineTeacher, Teacher
from iadr1.expert_ad.variants import varied
from iadr1.params import Params
from iadr1.samples import Sample, write_samples
from iadr1.splits import category_of, divided
from tasks._parallel import each
from tasks._run import Workspace, fresh_directory, run_stage

AT_ONCE = 8  # requests to a teacher under way
REPLIES = Path(".checkpoints/expert_ad/replies")  # of teachers, by content: an experiment does not pay for what another one has asked
VISIBILITY = "visibility.json"  # what made data knows exactly: {path below the raw data: visibility}


def main(params: Params, work: Workspace) -> None:
    """Prepare, and track how many rows of each kind there are."""
    from tasks._tracking import stage_run

    with stage_run(work, "prepare", params) as run:
        run.log_metrics(prepared(params, work))


def prepared(params: Params, work: Workspace) -> dict[str, float]:
    """Write the parts for training and the test sets; returns the number of rows of each kind."""
    train = training_samples(params.prepare.train, work.raw)
    tests, normal = _test_samples(params, work)
    parts = divided(
        train, rows=params.prepare.rows, annotated_only=CHAINED, anomalous_share=params.prepare.anomalous_shares, seed=params.seed
    )
    seen = _visibilities(work.raw)
    chosen = [_with_visibility(sample, work.raw, seen) for samples in (*parts.values(), *tests.values()) for sample in samples]
    known, regions, hidden = annotated(
        chosen,
        grid=params.prepare.grid,
        multi_view=multi_view({**params.evaluate.datasets, **params.prepare.train}),
        mapper=partial(each, doing="measuring masks"),
    )
    if hidden:
        print(f"prepare: {len(hidden)} views of defective parts do not show the defect (their mask is empty) and are left out.")
    teacher, mapper = _teacher(params)
    built = build(
        {part: _kept(samples, known) for part, samples in parts.items()}, regions, teacher=teacher, described=CHAINED,
        rejecting=frozenset(params.prepare.reject), rows=params.prepare.rows, anomalous_share=params.prepare.anomalous_shares,
        grid=params.prepare.grid, types=params.prepare.types, decide=_decide(params), mapper=mapper,
    )  # fmt: skip
    learned = varied(built.parts, params.prepare)
    tests = {
        name: [with_references(sample, normal.get(category_of(sample), [])) for sample in _kept(samples, known)]
        for name, samples in tests.items()
    }
    with fresh_directory(work.prepared) as folder:
        for part, samples in learned.items():
            write_samples(folder / f"{part}.jsonl", samples)
        for name, samples in tests.items():
            write_samples(folder / "test" / f"{name}.jsonl", samples)
    _tell_gates(built)
    _tell_reviews(built, params)
    _tell({**built.parts, **tests}, {**learned, **tests}, asked=params.prepare.rows)
    _tell_fewer_references(learned, params.prepare.shots)
    return {f"{name}_{kind}": count for name, samples in {**learned, **tests}.items() for kind, count in _counts(samples).items()}


def _teacher(params: Params) -> tuple[Teacher, Mapper]:
    """The teacher that the parameters name, and how it is asked about many pairs; what it answers is kept for the next run."""
    if params.prepare.teacher is None:
        return OfflineTeacher(), partial(each, doing="writing chains")
    kept = Kept(EndpointTeacher(Endpoint(*endpoint_of(os.environ, params.prepare.teacher))), REPLIES)
    return kept, in_threads(AT_ONCE, kept)


def _decide(params: Params) -> Decide:
    """What people decided about a chain; where nobody reviewed, all are let through."""
    if params.prepare.reviews is None:
        return lambda _, chain: chain
    folder = Path(params.prepare.reviews)
    if not any(folder.glob("*.jsonl")):
        raise DatasetError(f"prepare.reviews: no decisions in {folder}. Make some with `iadr1 expert-ad review`, or set it to null.")
    return decisions_of(folder)


def _test_samples(params: Params, work: Workspace) -> tuple[dict[str, list[Sample]], dict[str, list[Sample]]]:
    """The test samples of each data set, and the normal training images of each category, from which references are drawn."""
    tests: dict[str, list[Sample]] = {}
    normal: dict[str, list[Sample]] = {}
    for name, source in params.evaluate.datasets.items():
        samples = read(name, source, work.raw)
        tests[name] = [sample for sample in samples if split_of(sample) == "test"]
        if not tests[name]:
            raise DatasetError(f"evaluate.datasets.{name}: no test images in {work.raw / source.folder}. Add them, or remove the data set.")
        for sample in samples:
            if split_of(sample) == "train" and not sample.anomalous:
                normal.setdefault(category_of(sample), []).append(sample)
    refuse_without_normal("evaluate.datasets", [sample for samples in tests.values() for sample in samples])
    return tests, normal


def _visibilities(raw: Path) -> dict[str, float]:
    file = raw / VISIBILITY
    known: dict[str, float] = json_of(file) if file.is_file() else {}
    return known


def _with_visibility(sample: Sample, raw: Path, seen: Mapping[str, float]) -> Sample:
    return replace(sample, visibility=seen.get(Path(sample.images[-1]).relative_to(raw).as_posix())) if seen else sample


def _kept(samples: Sequence[Sample], annotated: Mapping[str, Sample]) -> list[Sample]:
    return [annotated[sample.id] for sample in samples if sample.id in annotated]


def _counts(samples: Sequence[Sample]) -> dict[str, int]:
    anomalous = sum(sample.anomalous for sample in samples)
    return {"normal": len(samples) - anomalous, "anomalous": anomalous}


def _tell_reviews(built: Built, params: Params) -> None:
    if params.prepare.reviews is None:
        return
    rejected = built.report()["rejected_by_people"]
    edited = sum(judgement.row != judgement.draft.row for judgement in built.judgements)
    chains = {judgement.row.id: judgement.draft.row.reasoning or "" for judgement in built.judgements}
    without = outdated(Path(params.prepare.reviews), chains)
    unused = f"; {without} decisions are about other texts, and count for nothing" if without else ""
    print(f"prepare: reviews: {rejected} chains are rejected, {edited} are edited{unused}.")


def _tell_gates(built: Built) -> None:
    for name, gate in built.report()["gates"].items():
        if gate["found"]:
            print(f"prepare: gate {name}: {gate['found']} chains ({gate['rate']:.1%}), such as: {gate['examples'][0]}")


def _tell(built: Mapping[str, Sequence[Sample]], written: Mapping[str, Sequence[Sample]], *, asked: Mapping[str, int]) -> None:
    for name, samples in written.items():
        counts, there = _counts(samples), len(built[name])
        share = f" of {there} (prepare.pa_sft_share)" if len(samples) < there else ""
        short = f", fewer than the {asked[name]} asked for: the training data holds no more that fit" if there < asked.get(name, 0) else ""
        print(f"prepare: {name}: {len(samples)} rows{share}, {counts['normal']} normal and {counts['anomalous']} defective{short}.")


def _tell_fewer_references(parts: Mapping[str, Sequence[Sample]], shots: int) -> None:
    for part, samples in parts.items():
        fewer = sum(len(sample.references) < shots for sample in samples)
        if fewer:
            print(
                f"prepare: {part}: {fewer} of {len(samples)} rows have fewer than {shots} reference images; they are shown what there is."
            )


if __name__ == "__main__":
    run_stage("prepare", main)
