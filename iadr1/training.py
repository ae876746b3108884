"""What PA-SFT and SC-GRPO share: the trainer's settings, checkpoints that a kill cannot spoil, and the recorded curve."""

import faulthandler
import gc
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from iadr1 import acceleration, backbones, guards, lora, sharding
from iadr1.errors import ModelError, ParamsError, Stopped
from iadr1.guards import Limits
from iadr1.images import content_hash

OURS = ("output_dir", "seed", "report_to")
COMPLETE = "COMPLETE"
# How many rows at once fitted, where what was asked for did not: a run that resumes begins with that.
FITTING = "rows_at_once"


@dataclass(frozen=True, slots=True)
class Job:
    """One training: the trainer's own keys, the model it starts from, where checkpoints lie and where the model goes.

    `global_batch_size` counts the rows (SC-GRPO: completions) of a step on all `processes` together; None leaves that to the trainer's keys.
    `lora` holds PEFT's keys, none for full training. `hang_after` is in seconds without any event.
    """

    keys: Mapping[str, Any]
    model: Path
    max_pixels: int | None
    freeze: Sequence[str]
    seed: int
    checkpoints: Path
    into: Path
    report_to: Sequence[str] = ()
    callbacks: Sequence[Any] = ()
    global_batch_size: int | None = None
    processes: int = 1
    lora: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    hang_after: float = 1800.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training has logged, step by step, how many parameters of each part it trained, and with which attention.

    `best_step` is the step whose model was kept, where that was chosen (load_best_model_at_end) and is not just the last one.
    """

    history: Sequence[Mapping[str, Any]]
    steps: int
    parts: Mapping[str, Mapping[str, int]]
    attention: str
    best_step: int | None = None


def settings(kind: Any, job: Job, *, section: str, **defaults: Any) -> Any:
    """The trainer's configuration: what params.yaml says, over defaults that fit this machine and vision-language data."""
    import torch

    if taken := sorted(job.keys.keys() & set(OURS)):
        raise ParamsError(f"params.yaml: {section}.{taken[0]} is decided by the stage. Remove it.")
    acceleration.require(job.keys, job.lora, job.model, section=section)
    gpu = torch.cuda.is_available()
    fitting = {"bf16": gpu, "gradient_checkpointing": gpu, "dataloader_pin_memory": gpu, "save_total_limit": 2}
    if job.processes > 1 and not gpu:
        # Without this every process would train for itself alone.
        fitting["use_cpu"] = True
    keys = fitting | defaults | dict(job.keys) | batch_keys(job, section=section)
    keys["model_init_kwargs"] = acceleration.model_options(keys)
    given = {"output_dir": str(job.checkpoints), "seed": job.seed, "report_to": list(job.report_to) or "none"}
    try:
        args = kind(**(keys | given))
    except (TypeError, ValueError) as error:
        raise ParamsError(f"params.yaml: {section}: {kind.__name__} refuses these keys: {error}") from error
    sharding.join(args)
    return args


def batch_keys(job: Job, *, section: str) -> dict[str, int]:
    """The trainer's batch and accumulation that make the global batch, where one is stated; `per_device_train_batch_size` is the most at once."""
    if job.global_batch_size is None:
        return {}
    if "gradient_accumulation_steps" in job.keys:
        raise ParamsError(f"params.yaml: {section}.gradient_accumulation_steps follows from global_batch_size. Remove one of the two.")
    most = job.keys.get("per_device_train_batch_size", 8)
    try:
        micro, accumulation = split_batch(job.global_batch_size, processes=job.processes, most=most)
    except ParamsError as error:
        raise ParamsError(f"params.yaml: {section}.{error}") from error
    return {"per_device_train_batch_size": micro, "gradient_accumulation_steps": accumulation}


def split_batch(global_batch: int, *, processes: int, most: int) -> tuple[int, int]:
    """Rows at once a process and how often, so that all processes together take the global batch: the most rows up to `most` that fit."""
    share, rest = divmod(global_batch, processes)
    if rest or share < 1 or most < 1:
        raise ParamsError(
            f"global_batch_size: {global_batch} rows cannot be shared equally by {processes} processes, at most {most} rows at once. "
            f"Start a number of processes that divides {global_batch}, or change the batch."
        )
    micro = max(rows for rows in range(1, min(most, share) + 1) if share % rows == 0)
    return micro, share // micro


def trainer_of(kind: Any, job: Job, *, section: str, **options: Any) -> Any:
    """TRL's trainer of the job's model, all of it or with adapters, its frozen parts frozen and its images packed."""
    adapters = lora.peft_config(job.lora, job.model, freeze=job.freeze, section=section)
    trainer = kind(str(job.model), peft_config=adapters, quantization_config=lora.quantization(job.lora), **options)
    for model in (trainer.model, getattr(trainer, "ref_model", None)):
        if model is not None:
            backbones.pack_images(trainer.accelerator.unwrap_model(model))
    if adapters is None:
        backbones.freeze(trainer.model, job.freeze)
    return trainer


def resume_point(checkpoints: Path) -> str | None:
    """The newest checkpoint whose files are as they were written; half-written ones, which a kill leaves, and damaged ones are removed."""
    folders = {int(path.name.removeprefix("checkpoint-")): path for path in checkpoints.glob("checkpoint-*")}
    for step, path in list(folders.items()):
        if not (path / COMPLETE).is_file() or (path / COMPLETE).read_text(encoding="utf-8") != _hashes(path):
            shutil.rmtree(folders.pop(step))
    return str(folders[max(folders)]) if folders else None


def _hashes(checkpoint: Path) -> str:
    """The SHA-256 of every file of a checkpoint, as lines in the form of sha256sum."""
    names = sorted(path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file() and path.name != COMPLETE)
    return "".join(f"{content_hash(checkpoint / name)}  {name}\n" for name in names)


def keeps_whole_checkpoints() -> Any:
    """A callback that makes a checkpoint fit to resume from, and marks it with the hashes of its files once all of them are written."""
    from transformers import TrainerCallback

    class KeepWhole(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            """Put the weights under the names that a resumed training reads, and mark the checkpoint as whole."""
            # Every process writes the state of its random numbers.
            _wait_for_others()
            if not state.is_world_process_zero:
                return
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            if not args.deepspeed and not hasattr(others["model"], "peft_config"):
                # The Trainer saves the names of the published layout but reloads by the names in memory: without this, a
                # vision-language model would resume from its starting weights, with no more than a warning.
                others["model"].save_pretrained(folder, save_original_format=False)
            (folder / COMPLETE).write_text(_hashes(folder), encoding="utf-8")

    return KeepWhole()


def _wait_for_others() -> None:
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def fit(build: Callable[[Job], Any], job: Job) -> Any:
    """The trained trainer that `build(job)` made; where memory runs out, half the rows at once and twice the accumulation.

    The global batch stays, and so do SC-GRPO's groups. Several processes cannot agree on that while some of them wait for the others: they end
    with a ModelError, and the next run begins with half the rows.
    """
    job = _within_memory(job)
    while True:
        trainer = build(job)
        smaller = run(trainer, job)
        if smaller is None:
            return trainer
        job, trainer = smaller, None
        _free_memory()


def _within_memory(job: Job) -> Job:
    file = job.checkpoints / FITTING
    return _at_most(job, *map(int, file.read_text(encoding="utf-8").split())) if file.is_file() else job


def _at_most(job: Job, rows: int, global_batch: int) -> Job:
    keys = {**job.keys, "per_device_train_batch_size": rows}
    keys.pop("gradient_accumulation_steps", None)
    return replace(job, keys=keys, global_batch_size=global_batch)


def _halved(job: Job, args: Any) -> Job:
    """The job with half the rows at once; raises ModelError where that cannot help, or has to wait for the next run."""
    rows = args.per_device_train_batch_size
    if rows == 1:
        raise ModelError(
            "memory ran out with one row at once. Train with LoRA (lora: {r: 16}) or DeepSpeed ZeRO-3, or lower max_pixels or the lengths."
        )
    global_batch = rows * args.gradient_accumulation_steps * job.processes
    (job.checkpoints / FITTING).write_text(f"{rows // 2} {global_batch}\n", encoding="utf-8")
    if job.processes > 1:
        raise ModelError(f"memory ran out with {rows} rows at once on a process. Run again: the next run takes {rows // 2} and resumes.")
    return _at_most(job, rows // 2, global_batch)


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def run(trainer: Any, job: Job) -> Job | None:
    """Train from the newest complete checkpoint, or from the start; a job to try instead where memory ran out, else None."""
    from safetensors import SafetensorError

    smaller: Job | None = None
    job.checkpoints.mkdir(parents=True, exist_ok=True)
    with trainer.accelerator.main_process_first():
        checkpoint = resume_point(job.checkpoints)
    if checkpoint is not None:
        trainer.args.eval_on_start = False  # the checkpoint remembers what was measured then
        _take_no_step_too_many(trainer)
    with guards.sigterm() as wish:
        _add_callbacks(trainer, job, guards.saves_when_asked(wish))
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
        except (RuntimeError, SafetensorError) as error:
            if not _is_out_of_memory(error):
                _raise_where_full(job.checkpoints, job.model, error)
                raise
            smaller = _halved(job, trainer.args)
        finally:
            faulthandler.cancel_dump_traceback_later()
    if wish.asked:
        raise Stopped(
            f"asked to stop (SIGTERM) at step {trainer.state.global_step}; a checkpoint is saved in {job.checkpoints}, the next run resumes."
        )
    return smaller


def _take_no_step_too_many(trainer: Any) -> None:
    """Let a run that resumes after its last step train no more: transformers would take another one before it sees that none is left."""
    run_epoch = trainer._run_epoch

    def unless_done(*, resume_from_checkpoint: str, **others: Any) -> None:
        if trainer.state.global_step < trainer.state.max_steps:
            run_epoch(resume_from_checkpoint=resume_from_checkpoint, **others)
            return
        trainer._load_rng_state(resume_from_checkpoint)
        # Without a step there are no completions, and TRL would write so over those of the last one.
        trainer.log_completions = False
        trainer.control.should_training_stop = True

    trainer._run_epoch = unless_done


def _add_callbacks(trainer: Any, job: Job, *callbacks: Any) -> None:
    from transformers import PrinterCallback, ProgressCallback

    if any(isinstance(callback, ProgressCallback) for callback in job.callbacks):
        # One or the other is there, by the verbosity of the library's log.
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
    watching = (guards.stops_when_collapsed(job.limits), guards.ends_when_hanging(job.hang_after))
    for callback in (keeps_whole_checkpoints(), *watching, *callbacks, *job.callbacks):
        trainer.add_callback(callback)


def _raise_where_full(folder: Path, model: Path, error: Exception) -> None:
    """Raise ModelError when the disk of a folder is full: torch and safetensors report that as errors of their own, without an errno."""
    free = shutil.disk_usage(folder).free
    if free <= 2 * _largest_file(model):
        raise ModelError(f"{folder}: the disk is full ({free // 2**20} MiB left). Free some space; the next run resumes.") from error


def _largest_file(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.iterdir())


def outcome(trainer: Any, processor: Any, job: Job) -> Outcome:
    """What the training has logged, after its model is saved to where it goes, with its adapters merged into the weights."""
    from safetensors import SafetensorError

    model = trainer.model
    parts = backbones.part_sizes(model)
    attention, state = model.config._attn_implementation, sharding.whole_state(trainer)
    if trainer.accelerator.is_main_process:
        if job.lora:
            model, state = lora.merged(model, job.model, job.lora, state), None
        try:
            backbones.save(model, processor, job.into, state=state)
        except SafetensorError as error:
            _raise_where_full(job.into, job.model, error)
            raise
    best = trainer.state.best_global_step if trainer.args.load_best_model_at_end else None
    return Outcome(trainer.state.log_history, trainer.state.global_step, parts, attention, best)


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
