"""A registered version asked about samples with the settings that it was evaluated with; every answer is kept as it comes (docs/evaluation.md)."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace

from iadr1.params import Params
from iadr1.registry import Found
from iadr1.report import Prediction
from iadr1.samples import Sample
from tasks._asking import Candidate, Exam, Share, ask
from tasks._run import Workspace

PROTOCOL = "paper"


def exam_of(found: Found, params: Params, work: Workspace, *, name: str, samples: Sequence[Sample], shots: int) -> Exam:
    """What the version is asked: these samples, as the stage `evaluate` asks, but with the version's own settings."""
    evaluate = {key: found.settings[key] for key in ("batch_size", "max_new_tokens") if key in found.settings}
    pa_sft = {key: found.settings[key] for key in ("max_pixels",) if key in found.settings}
    told = replace(
        params,
        evaluate=params.evaluate.model_copy(update={**evaluate, "protocols": [PROTOCOL], "latency": False}),
        pa_sft=params.pa_sft.model_copy(update=pa_sft),
    )
    return Exam(name, told, work, samples, shots)


def predictions_of(found: Found, exam: Exam, *, name: str) -> Iterator[Prediction]:
    """The version's predictions, under a name; what it has answered before is not asked again."""
    candidate = Candidate(name, found.folder, base=False)
    ask(candidate, [exam], Share())
    return exam.predictions(candidate, PROTOCOL)


def forget(exam: Exam) -> None:
    """Remove the answers of an exam, so that it is asked anew the next time."""
    shutil.rmtree(exam.work.checkpoints / "answers" / exam.name, ignore_errors=True)
