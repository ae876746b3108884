"""Lets the base, PA-SFT and SC-GRPO models inspect one data set, so that a person sees what each stage added.

Reads `prepared/test/<dataset>.jsonl` and the models; writes `predictions/<dataset>-<shots>.jsonl` and, in `reports/evaluate/`,
`<dataset>-<shots>.json`. With `evaluate.threshold` the models also see `prepared/validation.jsonl`, with `evaluate.questions` they answer MMAD's
questions; both stand beside the report.
Run with `--dataset mvtec --shots 0`; every answer is kept as it comes, so a killed run goes on where it was.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from iadr1.backbones import backbone_of
from iadr1.errors import DatasetError, ParamsError
from iadr1.images import require_readable
from iadr1.multiple_choice import Choice, accuracies, questions_about
from iadr1.params import Params, suggestion
from iadr1.report import EvalReport, Prediction, iterate_predictions, write_predictions
from iadr1.samples import Sample, read_samples, write_lines
from iadr1.templates import with_similar
from tasks._asking import Candidate, Exam, Share, ask, ask_all
from tasks._run import Workspace, fresh_file, run_stage
from tasks._tracking import StageRun, stage_run

STAGE = "evaluate"
EXAMPLES = 3


def main(params: Params, work: Workspace, *, dataset: str, shots: int) -> None:
    """Predict with every model, report, and log both."""
    exam = Exam(f"{dataset}-{shots}", params, work, _samples(params, work, dataset=dataset, shots=shots), shots)
    validation, questions = _validation(params, work, shots=shots), _questions(exam)
    candidates = [_candidate(name, params, work) for name in params.evaluate.models]
    share = Share.told(params)
    if share is not None:
        for candidate in candidates:
            ask(candidate, [exam, *validation, *questions], share)
        return
    with stage_run(work, f"{STAGE}@{exam.name}", params) as run:
        _say_fewer_references(run, exam)
        seconds = ask_all(candidates, [exam, *validation, *questions])
        run.log_metrics({f"{name}.seconds_per_image": took / len(exam.samples) for name, took in seconds.items()})
        _report(run, exam, validation, candidates)
        for asked in questions:
            _report_choices(run, asked, candidates)
        for asked in (exam, *validation, *questions):
            for candidate in candidates:
                asked.forget_others(candidate)


def _report(run: StageRun, exam: Exam, validation: Sequence[Exam], candidates: Sequence[Candidate]) -> None:
    """Write predictions, the report of them, and what a person sees of both; nothing is held but counts."""
    path, reports = exam.work.predictions / f"{exam.name}.jsonl", exam.work.reports / STAGE
    write_predictions(path, _predictions(exam, candidates))
    beside = reports / f"{exam.name}.validation.jsonl"
    if validation:
        write_predictions(beside, (one for asked in validation for one in _predictions(asked, candidates)))
    report = EvalReport.of(
        iterate_predictions(path), grid=exam.params.prepare.grid, validation=iterate_predictions(beside) if validation else ()
    )
    with fresh_file(reports / f"{exam.name}.json") as file:
        file.write_text(report.to_json() + "\n", encoding="utf-8")
    _log(run, report, iterate_predictions(path), exam.samples)


def _report_choices(run: StageRun, exam: Exam, candidates: Sequence[Candidate]) -> None:
    """Write what was chosen, a line a question, and the accuracy of each type of question."""
    path, found = exam.work.reports / STAGE / f"{exam.name}.json", {}
    for candidate in candidates:
        chosen = list(exam.choices(candidate))
        write_lines(
            path.with_name(f"{exam.name}.{candidate.name}.jsonl"), (json.dumps(_choice(choice), ensure_ascii=False) for choice in chosen)
        )
        found[candidate.name] = accuracies(chosen)
        run.log_metrics({f"{candidate.name}.multiple_choice": found[candidate.name]["mean"]["accuracy"]})
    with fresh_file(path) as file:
        file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _choice(choice: Choice) -> dict[str, Any]:
    asked = choice.question
    told = {"id": asked.id, "sample_id": asked.sample.id, "type": asked.type, "question": asked.text, "options": dict(asked.options)}
    return {**told, "answer": asked.answer, "chosen": choice.letter, "text": choice.text}


def _predictions(exam: Exam, candidates: Sequence[Candidate]) -> Iterator[Prediction]:
    for candidate in candidates:
        for protocol in exam.protocols:
            yield from exam.predictions(candidate, protocol)


def _samples(params: Params, work: Workspace, *, dataset: str, shots: int) -> list[Sample]:
    if dataset not in params.evaluate.datasets:
        raise ParamsError(f"--dataset {dataset}: evaluate.datasets has no such data set; {suggestion(dataset, params.evaluate.datasets)}")
    file = work.prepared / "test" / f"{dataset}.jsonl"
    samples = read_samples(file)
    if not samples:
        raise DatasetError(f"{file} holds no sample. Check the folder of evaluate.datasets.{dataset} and run `dvc repro prepare`.")
    return _with_references(samples, params, shots=shots)


def _validation(params: Params, work: Workspace, *, shots: int) -> list[Exam]:
    """What thresholds are chosen on: the products of validation, which no test shows."""
    if not params.evaluate.threshold:
        return []
    file = work.prepared / "validation.jsonl"
    # Thresholds need no chains, and a chain that is written anew must not look like another image.
    samples = [replace(sample, reasoning=None) for sample in read_samples(file)]
    if len({sample.anomalous for sample in samples}) < 2:
        raise DatasetError(
            f"{file}: a threshold needs normal and anomalous images. Raise prepare.validation_rows, or unset evaluate.threshold."
        )
    return [Exam(f"validation-{shots}", params, work, _with_references(samples, params, shots=shots), shots)]


def _questions(exam: Exam) -> list[Exam]:
    """MMAD's questions about the same images."""
    file = exam.params.evaluate.questions
    if file is None:
        return []
    questions = questions_about(exam.samples, Path(file))
    samples = [replace(question.sample, id=question.id) for question in questions]
    return [Exam(f"{exam.name}.questions", exam.params, exam.work, samples, exam.shots, questions)]


def _with_references(samples: list[Sample], params: Params, *, shots: int) -> list[Sample]:
    require_readable(samples, shots=shots)
    return with_similar(samples, shots=shots) if shots and params.evaluate.references == "similar" else samples


def _candidate(name: str, params: Params, work: Workspace) -> Candidate:
    folders = {"base": Path(params.pa_sft.backbone), "pa_sft": work.pa_sft, "sc_grpo": work.models / "sc_grpo"}
    if name not in folders:
        raise ParamsError(f"evaluate.models: {name} is no model of this chain; {suggestion(name, folders)}")
    backbone_of(folders[name])
    return Candidate(name, folders[name], base=name == "base", form=name == "sc_grpo" and params.sc_grpo.start == "base")


def _say_fewer_references(run: StageRun, exam: Exam) -> None:
    fewer = sum(len(sample.references) < exam.shots for sample in exam.samples)
    if fewer:
        total = len(exam.samples)
        sys.stderr.write(f"{fewer} of {total} samples have fewer than {exam.shots} reference images; they are shown what there is\n")
    run.log_metrics({"samples": len(exam.samples), "samples_with_fewer_references": fewer})


def _log(run: StageRun, report: EvalReport, predictions: Iterable[Prediction], samples: Sequence[Sample]) -> None:
    for model, found in report.models.items():
        for tally in (dataset.tally for dataset in found.datasets.values()):
            rates = {"balanced_accuracy": tally.balanced_accuracy, "tpr": tally.tpr, "tnr": tally.tnr, "unreadable": tally.unreadable}
            run.log_metrics({f"{model}.{name}": value for name, value in rates.items()})
        for calibration in (dataset.calibration for dataset in found.datasets.values() if dataset.calibration):
            told = {"auroc": calibration.auroc, "average_precision": calibration.average_precision, "ece": calibration.ece}
            run.log_metrics({f"{model}.{name}": value for name, value in told.items()})
    images = {sample.id: sample.images[-1] for sample in samples}
    run.log_table("examples", _table([*_examples(predictions)], images))


def _examples(predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    """For each model, the first few of each kind: normal or anomalous, judged right or wrong."""
    shown: dict[tuple[str, bool, bool], int] = {}
    for prediction in predictions:
        kind = (prediction.model, prediction.anomalous, prediction.verdict.anomalous is prediction.anomalous)
        shown[kind] = shown.get(kind, 0) + 1
        if shown[kind] <= EXAMPLES:
            yield prediction


def _table(predictions: Sequence[Prediction], images: dict[str, str]) -> dict[str, list[Any]]:
    verdicts = [prediction.verdict for prediction in predictions]
    return {
        "image": [images[prediction.sample_id] for prediction in predictions],
        "model": [prediction.model for prediction in predictions],
        "sample": [prediction.sample_id for prediction in predictions],
        "anomalous": [prediction.anomalous for prediction in predictions],
        "says": [verdict.anomalous for verdict in verdicts],
        "says_location": [verdict.location for verdict in verdicts],
        "location": [prediction.location for prediction in predictions],
        "says_type": [verdict.type for verdict in verdicts],
        "type": [prediction.type for prediction in predictions],
        "text": [prediction.text for prediction in predictions],
    }


if __name__ == "__main__":
    run_stage(STAGE, main, options={"dataset": str, "shots": int})
