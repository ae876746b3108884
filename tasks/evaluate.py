"""Lets the base, PA-SFT and SC-GRPO models inspect one data set, so that a person sees what each stage added.

Reads `prepared/test/<dataset>.jsonl` and the models; writes `predictions/<dataset>-<shots>.jsonl` and, in `reports/evaluate/`,
`<dataset>-<shots>.json`.
Run with `--dataset mvtec --shots 0`; a killed run keeps the parts that it had finished.
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iadr1 import prompts
from iadr1.backbones import backbone_of
from iadr1.engines import ENGINES, Chat, Engine, Generated
from iadr1.errors import DatasetError, ParamsError
from iadr1.images import require_readable
from iadr1.params import Params, suggestion
from iadr1.report import EvalReport, Prediction, read_predictions, write_predictions
from iadr1.samples import Sample, read_samples
from tasks._run import Workspace, fresh_file, run_stage
from tasks._tracking import StageRun, stage_run
from tasks._training import fingerprint, quiet_libraries

STAGE = "evaluate"
# Parts are a fixed number of samples, whatever was finished before: batches, and with them the last bits of the logits, stay the same.
PART = 256
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to evaluate: where it is, and how it is asked and read."""

    name: str
    folder: Path
    base: bool
    form: bool = False  # asked for the form of the answer in words


@dataclass(frozen=True, slots=True)
class Exam:
    """What every candidate is asked."""

    params: Params
    work: Workspace
    samples: Sequence[Sample]
    shots: int

    def parts(self, candidate: Candidate) -> Path:
        """Where a candidate's finished parts lie: named by everything that its answers depend on."""
        told = self.params.evaluate
        asked = (
            told.engine,
            told.batch_size,
            told.max_new_tokens,
            self.params.pa_sft.max_pixels,
            self.shots,
            candidate.base,
            candidate.form,
            PART,
        )
        made_from = fingerprint(candidate.folder, self.samples, *asked, self.params.seed)
        return self.work.checkpoints / STAGE / f"{candidate.name}-{made_from}"


def main(params: Params, work: Workspace, *, dataset: str, shots: int) -> None:
    """Predict with every model, report, and log both."""
    exam = Exam(params, work, _samples(params, work, dataset=dataset, shots=shots), shots)
    candidates = [_candidate(name, params, work) for name in params.evaluate.models]
    name = f"{dataset}-{shots}"
    with stage_run(work, f"{STAGE}@{name}", params) as run:
        _say_fewer_references(run, exam)
        predictions = [prediction for candidate in candidates for prediction in _predictions(candidate, exam, run)]
        report = EvalReport.of(predictions, grid=params.prepare.grid)
        write_predictions(work.predictions / f"{name}.jsonl", predictions)
        with fresh_file(work.reports / STAGE / f"{name}.json") as beside:
            beside.write_text(report.to_json() + "\n", encoding="utf-8")
        _log(run, report, predictions, exam.samples)
    for candidate in candidates:
        shutil.rmtree(exam.parts(candidate), ignore_errors=True)


def _samples(params: Params, work: Workspace, *, dataset: str, shots: int) -> list[Sample]:
    if dataset not in params.evaluate.datasets:
        raise ParamsError(f"--dataset {dataset}: evaluate.datasets has no such data set; {suggestion(dataset, params.evaluate.datasets)}")
    file = work.prepared / "test" / f"{dataset}.jsonl"
    samples = read_samples(file)
    if not samples:
        raise DatasetError(f"{file} holds no sample. Check the folder of evaluate.datasets.{dataset} and run `dvc repro prepare`.")
    require_readable(samples, shots=shots)
    return samples


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


def _predictions(candidate: Candidate, exam: Exam, run: StageRun) -> list[Prediction]:
    """A candidate's predictions, part by part; parts that an earlier run finished are read back."""
    folder, engine = exam.parts(candidate), _Lazily(lambda: _engine(candidate, exam))
    start, found = time.perf_counter(), []
    with _bar(f"{candidate.name:8}", len(exam.samples)) as bar:
        for number, at in enumerate(range(0, len(exam.samples), PART)):
            part, path = exam.samples[at : at + PART], folder / f"{number:04}.jsonl"
            if path.is_file():
                bar.update(len(part))
            else:
                answers = engine([_chat(sample, candidate, exam.shots) for sample in part], bar.update)
                write_predictions(path, _judged(candidate, part, answers, exam.params.seed))
            found += read_predictions(path)
    run.log_metrics({f"{candidate.name}.seconds_per_image": (time.perf_counter() - start) / len(exam.samples)})
    return found


def _chat(sample: Sample, candidate: Candidate, shots: int) -> Chat:
    return prompts.messages(sample, shots=min(shots, len(sample.references)), base=candidate.base, form=candidate.form)


class _Lazily:
    """An engine that is loaded when it is first asked: a model whose parts are all there is never loaded."""

    def __init__(self, load: Callable[[], Engine]) -> None:
        self.load = load
        self.engine: Engine | None = None

    def __call__(self, chats: Sequence[Chat], done: Callable[[int], object]) -> list[Generated]:
        self.engine = self.engine or self.load()
        return self.engine(chats, done)


def _engine(candidate: Candidate, exam: Exam) -> Engine:
    quiet_libraries()
    told, pixels = exam.params.evaluate, exam.params.pa_sft.max_pixels
    load = ENGINES[told.engine]
    return load(candidate.folder, batch_size=told.batch_size, max_new_tokens=told.max_new_tokens, max_pixels=pixels, images=1 + exam.shots)


def _judged(candidate: Candidate, samples: Sequence[Sample], answers: Sequence[Generated], seed: int) -> list[Prediction]:
    return [
        Prediction(
            sample.id, sample.dataset, sample.category, candidate.name, sample.anomalous, answer.text, answer.truncated, answer.tokens,
            sample.visibility, sample.location, sample.type, "free" if candidate.base or candidate.form else "tags", seed,
        )
        for sample, answer in zip(samples, answers, strict=True)
    ]  # fmt: skip


def _bar(label: str, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=label, unit=" images", mininterval=0.5 if sys.stderr.isatty() else 10.0)


def _log(run: StageRun, report: EvalReport, predictions: Sequence[Prediction], samples: Sequence[Sample]) -> None:
    for model, found in report.models.items():
        for tally in (dataset.tally for dataset in found.datasets.values()):
            rates = {"balanced_accuracy": tally.balanced_accuracy, "tpr": tally.tpr, "tnr": tally.tnr, "unreadable": tally.unreadable}
            run.log_metrics({f"{model}.{name}": value for name, value in rates.items()})
    images = {sample.id: sample.images[-1] for sample in samples}
    run.log_table("examples", _table([*_examples(predictions)], images))


def _examples(predictions: Sequence[Prediction]) -> Iterator[Prediction]:
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
