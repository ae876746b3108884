"""What PA-SFT and SC-GRPO share: the trainer's settings, checkpoints that a kill cannot spoil, and the recorded curve."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iadr1.errors import ModelError, ParamsError

OURS = ("output_dir", "seed", "report_to")
COMPLETE = "COMPLETE"


@dataclass(frozen=True, slots=True)
class Job:
    """One training: the trainer's own keys, the model it starts from, where checkpoints lie and where the model goes."""

    keys: Mapping[str, Any]
    model: Path
    max_pixels: int | None
    freeze: Sequence[str]
    seed: int
    checkpoints: Path
    into: Path
    report_to: Sequence[str] = ()
    callbacks: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training has logged, step by step, and how many parameters of each part it trained."""

    history: Sequence[Mapping[str, Any]]
    steps: int
    parts: Mapping[str, Mapping[str, int]]


def settings(kind: Any, job: Job, *, section: str, **defaults: Any) -> Any:
    """The trainer's configuration: what params.yaml says, over defaults that fit this machine and vision-language data."""
    import torch

    if taken := sorted(job.keys.keys() & set(OURS)):
        raise ParamsError(f"params.yaml: {section}.{taken[0]} is decided by the stage. Remove it.")
    gpu = torch.cuda.is_available()
    fitting = {"bf16": gpu, "gradient_checkpointing": gpu, "dataloader_pin_memory": gpu, "save_total_limit": 2}
    given = {"output_dir": str(job.checkpoints), "seed": job.seed, "report_to": list(job.report_to) or "none"}
    try:
        return kind(**(fitting | defaults | dict(job.keys) | given))
    except (TypeError, ValueError) as error:
        raise ParamsError(f"params.yaml: {section}: {kind.__name__} refuses these keys: {error}") from error


def resume_point(checkpoints: Path) -> str | None:
    """The newest complete checkpoint; half-written ones, which a kill leaves, are removed."""
    folders = {int(path.name.removeprefix("checkpoint-")): path for path in checkpoints.glob("checkpoint-*")}
    for step, path in list(folders.items()):
        if not (path / COMPLETE).is_file():
            shutil.rmtree(folders.pop(step))
    return str(folders[max(folders)]) if folders else None


def keeps_whole_checkpoints() -> Any:
    """A callback that makes a checkpoint fit to resume from, and marks it once all of its files are written."""
    from transformers import TrainerCallback

    class KeepWhole(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            if not args.deepspeed and not hasattr(others["model"], "peft_config"):
                # The Trainer saves the names of the published layout but reloads by the names in memory: without this, a
                # vision-language model would resume from its starting weights, with no more than a warning.
                others["model"].save_pretrained(folder, save_original_format=False)
            (folder / COMPLETE).touch()

    return KeepWhole()


def run(trainer: Any, job: Job) -> None:
    """Train from the newest complete checkpoint, or from the start."""
    from safetensors import SafetensorError
    from transformers import PrinterCallback, ProgressCallback

    job.checkpoints.mkdir(parents=True, exist_ok=True)
    if any(isinstance(callback, ProgressCallback) for callback in job.callbacks):
        # One or the other is there, by the verbosity of the library's log.
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
    for callback in (keeps_whole_checkpoints(), *job.callbacks):
        trainer.add_callback(callback)
    try:
        trainer.train(resume_from_checkpoint=resume_point(job.checkpoints))
    except (RuntimeError, SafetensorError) as error:
        # torch and safetensors report a full disk as errors of their own, without an errno.
        if shutil.disk_usage(job.checkpoints).free > 2 * _largest_file(job.model):
            raise
        free = shutil.disk_usage(job.checkpoints).free // 2**20
        raise ModelError(f"{job.checkpoints}: the disk is full ({free} MiB left). Free some space; the next run resumes.") from error


def _largest_file(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.iterdir())


def is_validated(state: Any) -> bool:
    """Whether the validation samples were measured at the step that the training has reached."""
    return any("eval_loss" in entry and entry["step"] == state.global_step for entry in state.log_history)


def curve(history: Iterable[Mapping[str, Any]], columns: Sequence[str], *, of: str) -> list[dict[str, Any]]:
    """One row for each log entry that has the column `of`, with the evaluation that came next; a plot has no holes in that column."""
    rows: list[dict[str, Any]] = []
    for entry in history:
        if of in entry:
            rows.append({"step": entry["step"], **{name: entry.get(name) for name in columns}})
        elif rows:
            rows[-1] |= {name: value for name, value in entry.items() if name in columns and name.startswith("eval_")}
    return rows
