"""Lets the live model (production, else staging) inspect a new batch, and compares what it sees and says with a reference: has something drifted?

python -m tasks._watch [NEW] [--labels FILE.csv] [--reference FILE.jsonl]

NEW is a folder of images, or a file of samples with their labels; without it the model is asked again about the prepared test sets. The reference is a
file of observations that an earlier watch has kept in reports/watch/, such as those of a batch that a person found good; without one it is the test
sets as the same version answered them when it was first watched. Labels that have come back are rows of image,anomalous (yes or no).
Writes reports/watch.json and reports/watch.md, and a run in MLflow. Exit code 0: nothing has drifted, 3: something has, 1: it could not be decided.
"""

import argparse
import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from iadr1.datasets.folders import IMAGES
from iadr1.drift import Drift, Limits, Observation, look_of, markdown, read_observations, write_observations
from iadr1.errors import DatasetError, Iadr1Error
from iadr1.inspection import fault_of
from iadr1.params import Params, load
from iadr1.registry import Found, live, registered
from iadr1.samples import Sample, read_samples
from tasks._environment import switch_telemetry_off
from tasks._run import Workspace, fresh_file
from tasks._versions import exam_of, forget, predictions_of

STAGE = "watch"
DRIFTED, UNDECIDED = 3, 1
LABELS = {"yes": True, "no": False}
EXIT = {"steady": 0, "drift": DRIFTED, "undecided": UNDECIDED}


@dataclass(frozen=True, slots=True)
class Batch:
    """Images to ask about, and the labels that are known of them, by the samples' ids; `unreadable` could not be opened."""

    name: str
    samples: Sequence[Sample]
    labels: Mapping[str, bool]
    unreadable: Sequence[str] = ()


def batch_of(new: Path, labels: Path | None) -> Batch:
    """The images of a folder, or the samples of a file; raises DatasetError where there are none."""
    if new.is_dir():
        paths = sorted(path for path in new.rglob("*") if path.suffix.lower() in IMAGES and path.is_file())
        samples = [Sample(path.relative_to(new).as_posix(), new.name, "", (str(path),), anomalous=False) for path in paths]
        known: dict[str, bool] = {}
    else:
        samples = read_samples(new)
        known = {sample.id: sample.anomalous for sample in samples}
    if not samples:
        raise DatasetError(f"{new}: no images. Name a folder that holds some ({', '.join(sorted(IMAGES))}), or a file of samples.")
    known |= _labels(labels, {sample.id for sample in samples}) if labels else {}
    unreadable = [sample.id for sample in samples if fault_of(sample.images[-1])]
    return Batch(new.stem, [sample for sample in samples if sample.id not in set(unreadable)], known, unreadable)


def _labels(file: Path, images: set[str]) -> dict[str, bool]:
    """Rows of image,anomalous; raises DatasetError that names the line that is none."""
    if not file.is_file():
        raise DatasetError(f"--labels {file}: no such file. Write a CSV of image,anomalous with yes or no.")
    found: dict[str, bool] = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for number, row in enumerate(csv.DictReader(lines), 2):
            image, said = row.get("image"), LABELS.get((row.get("anomalous") or "").strip().lower())
            if image not in images or said is None:
                raise DatasetError(
                    f"{file}:{number}: expected image,anomalous with an image of the batch and yes or no; found {dict(row)}."
                )
            found[image] = said
    return found


def tests_of(params: Params, work: Workspace) -> Batch:
    """The prepared test sets."""
    samples = [sample for dataset in params.evaluate.datasets for sample in read_samples(work.prepared / "test" / f"{dataset}.jsonl")]
    return Batch("tests", samples, {sample.id: sample.anomalous for sample in samples})


def observed(found: Found, params: Params, work: Workspace, batch: Batch) -> list[Observation]:
    """What the model says about each image, and how it looks. A kill loses no answer; a watch that has ended asks anew."""
    exam = exam_of(found, params, work, name=f"{STAGE}-{batch.name}", samples=batch.samples, shots=0)
    said = {one.sample_id: one for one in predictions_of(found, exam, name=slug(found))}
    seen = [
        Observation(
            sample.id, said[sample.id].verdict.anomalous, said[sample.id].p_yes, batch.labels.get(sample.id), **look_of(sample.images[-1])
        )
        for sample in batch.samples
    ]
    forget(exam)
    return seen


def slug(found: Found) -> str:
    """The version's name as a file is called: iad-r1-version-3."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", found.name.partition(" (")[0])


def watched(params: Params, work: Workspace, given: argparse.Namespace) -> tuple[Found, Batch, Drift, Path]:
    """The live model, the batch, how far it is from the reference, and the file of what was observed."""
    found = registered(given.model) if given.model else live()
    batch = batch_of(given.new, given.labels) if given.new else tests_of(params, work)
    kept = work.reports / STAGE
    reference = given.reference or kept / f"{slug(found)}.jsonl"
    if not given.reference and not reference.is_file():
        write_observations(reference, observed(found, params, work, tests_of(params, work)))
        print(f"{STAGE}: the reference of {found.name} is its answers about the test sets as they are now: {reference}.", flush=True)
    seen = observed(found, params, work, batch)
    file = kept / f"{slug(found)}-{batch.name}.jsonl"
    write_observations(file, seen)
    limits = Limits(**{field.name: getattr(given, field.name) for field in fields(Limits)})
    return found, batch, Drift.of(read_observations(reference), seen, limits), file


def page(found: Found, batch: Batch, drift: Drift, file: Path) -> str:
    """What a person reads."""
    lost = f"\n{len(batch.unreadable)} images could not be read: {', '.join(batch.unreadable[:5])}.\n" if batch.unreadable else ""
    return f"# {found.name} on {batch.name}\n\n{markdown(drift)}{lost}\nObserved: {file}\n"


def record(params: Params, work: Workspace, found: Found, drift: Drift, files: Sequence[Path]) -> None:
    """A run in an experiment of its own, so that watches stand side by side and no release is touched."""
    from tasks._tracking import end_release, stage_run

    own = replace(work, name=STAGE if work.name == "root" else f"{work.name}-{STAGE}")
    distances = {measure.name: measure.distance for measure in drift.measures}
    with stage_run(own, STAGE, params) as run:
        run.log_metrics({"images": drift.images[1], "drifted": float(drift.verdict == "drift"), **distances})
        tags = {"model": found.name, "verdict": drift.verdict}
        run.set_tags(tags)
        for file in files:
            run.log_file(file)
        end_release(run, distances, [], tags=tags)


def main() -> None:
    """Watch, write, record and tell."""
    given = _parser().parse_args()
    switch_telemetry_off()
    try:
        params = load(given.params)
        work = Workspace.of(params, given.params)
        found, batch, drift, file = watched(params, work, given)
        told = {"model": found.name, "batch": batch.name, "unreadable_images": list(batch.unreadable), **drift.to_dict()}
        with fresh_file(work.reports / "watch.json") as beside:
            beside.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        with fresh_file(work.reports / "watch.md") as beside:
            beside.write_text(page(found, batch, drift, file), encoding="utf-8")
        record(params, work, found, drift, [work.reports / "watch.json", work.reports / "watch.md"])
    except Iadr1Error as error:
        sys.exit(f"{STAGE}: {error}")
    print(page(found, batch, drift, file), end="")
    sys.exit(EXIT[drift.verdict])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tasks._watch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "new", nargs="?", type=Path, metavar="NEW", help="a folder of images, or a file of samples (default: the test sets)"
    )
    parser.add_argument("--labels", type=Path, metavar="FILE.csv", help="labels that have come back: image,anomalous")
    parser.add_argument("--reference", type=Path, metavar="FILE.jsonl", help="observations to compare with")
    parser.add_argument("--model", metavar="models:/NAME/VERSION", help="another version than the live one")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE")
    for field in fields(Limits):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default, help="(default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
