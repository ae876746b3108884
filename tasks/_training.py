"""What the two training stages share: checkpoints named by what they are made from, short progress lines, and the files they leave."""

import csv
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iadr1.backbones import backbone_of
from iadr1.params import Params
from iadr1.samples import Sample
from iadr1.training import Job, Outcome
from tasks._run import Workspace, fresh_directory, fresh_file

SHOWN = ("loss", "reward", "kl", "eval_loss")


@contextmanager
def training_job(
    work: Workspace, params: Params, stage: str, *, model: Path, samples: Sequence[Sample], grid: int | None = None
) -> Iterator[Job]:
    """A job whose model becomes the stage's output at the end, all of it or nothing; its checkpoints outlive a kill and not a success."""
    told, max_pixels = getattr(params, stage), params.pa_sft.max_pixels
    backbone_of(model)
    checkpoints = work.checkpoints / stage / fingerprint(model, samples, told.model_dump(), max_pixels, grid, params.seed)
    with fresh_directory(work.models / stage) as into:
        yield Job(
            told.trainer, model, max_pixels, told.freeze, params.seed, checkpoints, into, report_to=["mlflow"], callbacks=[_progress()]
        )
    shutil.rmtree(work.checkpoints / stage)


def fingerprint(model: Path, samples: Sequence[Sample], *settings: Any) -> str:
    """A name for everything that a result is made from, so that no run takes up what another one has left."""
    shown = {Path(path) for sample in samples for path in (*sample.images, *sample.references)}
    files = [path for path in (*model.iterdir(), *shown) if path.is_file()]
    seen = sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    told = json.dumps([seen, [sample.to_json() for sample in samples], settings], default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def _progress() -> Any:
    """Hugging Face's own bar, with one short line a log entry in place of the whole dictionary."""
    from transformers import ProgressCallback

    class ShortLines(ProgressCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            super().on_train_begin(args, state, control, **others)
            if self.training_bar is not None and not sys.stderr.isatty():
                self.training_bar.mininterval = 10.0

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
            told = [f"{name} {float(logs[name]):.3f}" for name in SHOWN if logs.get(name) is not None]
            if self.training_bar is not None and told:
                self.training_bar.write(f"step {state.global_step}/{state.max_steps}  {'  '.join(told)}", file=sys.stderr)

    return ShortLines()


def quiet_libraries() -> None:
    """No bars for reading and writing weights, which hide the one that counts, and no advice to developers."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def write_curve(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The curve as CSV, for `dvc plots`."""
    with fresh_file(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["step"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_metrics(path: Path, outcome: Outcome, metrics: Mapping[str, Any]) -> None:
    """The stage's numbers as JSON, for `dvc metrics`; nothing in it depends on the clock."""
    told = {"steps": outcome.steps, **metrics, "parts": {name: dict(part) for name, part in outcome.parts.items()}}
    with fresh_file(path) as beside:
        beside.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def flat_parts(outcome: Outcome) -> dict[str, int]:
    """Parameter counts as MLflow parameters."""
    return {f"{part}.{name}": count for part, counts in outcome.parts.items() for name, count in counts.items()}
