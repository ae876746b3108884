"""What the two training stages share: checkpoints named by what they are made from, short progress lines, and the files they leave."""

import csv
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iadr1.backbones import backbone_of
from iadr1.errors import ParamsError
from iadr1.guards import Limits
from iadr1.params import Params, suggestion
from iadr1.samples import Sample
from iadr1.training import Job, Outcome
from tasks._launch import become_launcher, end_with_launcher, is_launched, processes
from tasks._run import Workspace, fresh_directory, fresh_file, is_main_process
from tasks._tracking import StageRun, stage_run

if TYPE_CHECKING:
    from iadr1.plan import Plan

# A rollout of a large model without vLLM takes minutes; what takes half an hour without an event does not end.
HANG_SECONDS = "1800"
DRY_RUN = {"dry-run": "tell the plan (parts, batch, steps, memory) and train nothing"}
SHOWN = ("loss", "reward", "kl", "eval_loss")


def job_of(work: Workspace, params: Params, stage: str, *settings: Any, model: Path, samples: Sequence[Sample]) -> Job:
    """What the parameters and the environment (the launcher's number of processes, IADR1_HANG_SECONDS) say about a training.

    `settings` are what it depends on besides its own section, and so part of its checkpoints' name.
    """
    told, max_pixels = getattr(params, stage), params.pa_sft.max_pixels
    backbone_of(model)
    # These decide when to stop and what is shown, not what is trained: with others the training goes on. So it does on another number of
    # processes, but not from the pieces of a checkpoint of DeepSpeed.
    count = processes(told.launch)
    own = told.model_dump(exclude={"limits", "launch", "table_steps"})
    pieces = [count] if "deepspeed" in own else []
    checkpoints = work.checkpoints / stage / fingerprint(model, samples, own, max_pixels, *settings, params.seed, *pieces)
    return Job(
        told.trainer, model, max_pixels, told.freeze, params.seed, checkpoints, work.models / stage,
        global_batch_size=told.global_batch_size, processes=count, lora=told.lora,
        limits=limits(stage, told.limits), hang_after=float(os.environ.get("IADR1_HANG_SECONDS", HANG_SECONDS)),
    )  # fmt: skip


def goes_on(plan: "Plan", *, dry_run: bool) -> bool:
    """Whether to train: not where a dry run only tells the plan; raises ModelError when it cannot fit into memory."""
    if dry_run and is_main_process():
        print(plan.text)
    plan.require_memory()
    return not dry_run


@contextmanager
def training_job(work: Workspace, stage: str, job: Job) -> Iterator[Job]:
    """The job with a folder for its model that becomes the stage's output at the end, all or nothing; checkpoints outlive a kill, not a success.

    Of several processes (torchrun) the first does that, records and speaks; the others only train.
    """
    if not is_main_process():
        yield job
        return
    with fresh_directory(work.models / stage) as into:
        yield replace(job, into=into, report_to=["mlflow"], callbacks=[_progress()])
    shutil.rmtree(job.checkpoints.parent)


def share(params: Params, work: Workspace, stage: str, *, dry_run: bool) -> None:
    """Go on as the launcher of the stage's processes where there are to be several, or DeepSpeed wants one; return where the stage does the work itself."""
    told = getattr(params, stage)
    if not is_launched() and (told.launch.processes > 1 or "deepspeed" in told.trainer):
        flags = ["--dry-run"] if dry_run else []
        become_launcher(stage, ["--params", str(work.params_file), *flags], count=told.launch.processes)
    end_with_launcher()


def limits(stage: str, changes: Mapping[str, float]) -> Limits:
    """The limits of a healthy training, some of them changed; raises ParamsError for a name that is none."""
    known = [field.name for field in fields(Limits)]
    if unknown := sorted(changes.keys() - set(known)):
        raise ParamsError(f"params.yaml: {stage}.limits.{unknown[0]} is not a limit; {suggestion(unknown[0], known)}")
    numbers: dict[str, Any] = {name: int(value) if name == "window" else value for name, value in changes.items()}
    return replace(Limits(), **numbers)


def stage_recording(work: Workspace, params: Params, stage: str) -> AbstractContextManager[StageRun | None]:
    """The stage's MLflow run; None for a process that only trains."""
    return stage_run(work, stage, params, watched=True) if is_main_process() else nullcontext()


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
    import torch
    from transformers.utils import logging as of_transformers

    # PEFT imports bitsandbytes wherever it is installed, and that tells of kernels for 4-bit weights on a CPU.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if not torch.cuda.is_available():
        # accelerate imports DeepSpeed wherever it is installed, and DeepSpeed warns that it has found no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")

    of_transformers.disable_progress_bar()
    of_transformers.set_verbosity_error()


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


def told_by(outcome: Outcome, job: Job) -> dict[str, Any]:
    """Parameter counts, attention and processes as MLflow parameters."""
    sizes = {f"{part}.{name}": count for part, counts in outcome.parts.items() for name, count in counts.items()}
    return {**sizes, "attention": outcome.attention, "processes": job.processes}
