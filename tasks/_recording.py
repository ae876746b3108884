"""What a training stage records while it runs: how fast it is, and tables of what was said to which image and what that earned."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iadr1.samples import Sample
from iadr1.throughput import operations_a_token, peak_of, utilization
from tasks._tracking import StageRun

TABLE_ROWS = 16


def records_speed(run: StageRun, *, passes: int = 0) -> Any:
    """A callback that logs tokens a second (prompts and answers, all processes), without evaluations and saving, and MFU where the peak is known.

    `passes` is how many forward passes a step has besides its own: in SC-GRPO those of the rollout and of the reference.
    """
    from transformers import TrainerCallback

    class RecordSpeed(TrainerCallback):
        began = spent = tokens = 0.0
        operations, peak = 0.0, None

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            counts = [(each.numel(), each.numel() * each.requires_grad) for each in model.parameters()]
            self.operations = operations_a_token(*map(sum, zip(*counts, strict=True)), passes=passes)
            self.peak, self.tokens = _peak(args), float(state.num_input_tokens_seen)

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.spent += time.perf_counter() - self.began

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" not in logs or "num_tokens" not in logs or not self.spent:
                return
            speed = (logs["num_tokens"] - self.tokens) / self.spent
            share = {"mfu": utilization(speed, self.operations, self.peak)} if self.peak else {}
            run.log_metrics({"tokens_per_second": speed, **share}, step=state.global_step)
            self.tokens, self.spent = logs["num_tokens"], 0.0

    return RecordSpeed()


def _peak(args: Any) -> float | None:
    import torch

    peak = peak_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    return peak and peak * args.world_size


def records_completions(run: StageRun, samples: Sequence[Sample], *, every: int) -> Any:
    """A callback that logs the completions of every so many steps as a table; TRL has written them by the time the next step begins."""
    from transformers import TrainerCallback

    class RecordCompletions(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            file = Path(args.output_dir, "completions", f"completions_{state.global_step:05d}.parquet")
            if state.global_step and state.global_step % every == 0 and file.is_file():
                log_completions(run, f"completions_{state.global_step:05d}", file, samples)

    return RecordCompletions()


def log_ends(run: StageRun, checkpoints: Path, samples: Sequence[Sample]) -> None:
    """The completions of the first and of the last step as tables."""
    tables = sorted((checkpoints / "completions").glob("*.parquet"))
    for name, chosen in (("first", tables[:1]), ("last", tables[-1:])):
        for path in chosen:
            log_completions(run, f"completions_{name}", path, samples)


def log_completions(run: StageRun, name: str, file: Path, samples: Sequence[Sample]) -> None:
    """TRL's completions of a step as a table: what was said to which image, what each reward gave, and what became of it."""
    import pandas

    frame = pandas.read_parquet(file).head(TABLE_ROWS)
    run.log_table(name, _columns(frame, {sample.id: sample.images[-1] for sample in samples}))


def _columns(frame: Any, images: Mapping[str, str]) -> dict[str, list[Any]]:
    told = {name: frame[name].tolist() for name in frame.columns if name not in ("prompt", "completion")}
    said = ["".join(message["content"] for message in completion) for completion in frame["completion"]]
    return {"image": [images[name] for name in told["sample"]], "completion": said, **told}
