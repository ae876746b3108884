"""What bench_train compares: the stages' own trainings, TRL's trainers as their scripts set them, and the published recipe's batches."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iadr1 import backbones, pa_sft, sc_grpo
from iadr1.recipes import RECIPES
from iadr1.rewards import trl_rewards
from iadr1.samples import Sample
from iadr1.training import Job

REWARDS = {"consistency": 1.0, "accuracy": 1.0, "location": 1.0, "type": 1.0}
GROUP = 4


@dataclass(frozen=True)
class Work:
    """What every arm of a measurement trains: the model, the rows, and how much of them; `batch` and `completions` are those of a step."""

    model: Path
    samples: Sequence[Sample]
    folder: Path
    max_pixels: int | None
    epochs: int
    batch: int
    steps: int
    completions: int
    tokens: int
    keys: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Meter:
    """What a training took between its first and its last step: seconds of the clock and of the processor, bytes, and seconds by part."""

    wall: float = 0.0
    processor: float = 0.0
    start_bytes: int = 0
    peak_bytes: int = 0
    parts: dict[str, float] = field(default_factory=dict)
    is_within: bool = False

    def callback(self) -> Any:
        """The callback that begins and ends the measurement."""
        from transformers import TrainerCallback

        meter = self

        class Measure(TrainerCallback):
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                meter.start_bytes = _forget_peak()
                meter.parts.clear()
                meter.wall, meter.processor = time.perf_counter(), time.process_time()

            def on_train_end(self, *_: Any, **__: Any) -> None:
                _wait_for_gpu()
                meter.wall, meter.processor = time.perf_counter() - meter.wall, time.process_time() - meter.processor
                meter.peak_bytes = _peak()

        return Measure()

    @contextmanager
    def timing(self, owner: Any, **names: str) -> Iterator[None]:
        """Counts the seconds in these methods of a class under the parts that they belong to; the outermost one counts."""
        before = {name: getattr(owner, name) for name in names}
        for name, part in names.items():
            setattr(owner, name, self._timed(before[name], part))
        yield
        for name, method in before.items():
            setattr(owner, name, method)

    def _timed(self, method: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            """Call the method; its seconds are added to its part, unless another part is being timed."""
            if self.is_within:
                return method(*arguments, **options)
            self.is_within, start = True, _now()
            try:
                return method(*arguments, **options)
            finally:
                self.is_within = False
                self.parts[part] = self.parts.get(part, 0.0) + _now() - start

        return timed


def _on_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _wait_for_gpu() -> None:
    import torch

    if _on_gpu():
        torch.cuda.synchronize()


def _now() -> float:
    """Seconds of the GPU's clock where there is one, else of this process's cores: others on the machine take none of those."""
    _wait_for_gpu()
    return time.perf_counter() if _on_gpu() else time.process_time()


def _forget_peak() -> int:
    """Bytes in use, from which the peak counts anew."""
    import torch

    if _on_gpu():
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return _resident("VmRSS")


def _peak() -> int:
    import torch

    return int(torch.cuda.max_memory_allocated()) if _on_gpu() else _resident("VmHWM")


def _resident(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return 1024 * int(found[1])


def own_pa_sft(work: Work, meter: Meter) -> dict[str, float]:
    """The stage's training."""
    pa_sft.train(_job(work, meter, "pa_sft", **_sft_keys(work, work.batch, work.batch)), work.samples, validation=())
    return {"samples": work.epochs * len(work.samples)}


def trl_pa_sft(work: Work, meter: Meter, *, rows: int, batch: int, checkpointing: bool) -> dict[str, float]:
    """TRL's trainer with its own collator, so many rows at once."""
    from trl import SFTConfig, SFTTrainer

    keys = _sft_keys(work, rows, batch)
    config = SFTConfig(**_shared(work, checkpointing), max_length=None, **keys)
    table = _with_images(pa_sft.rows(work.samples))
    trainer = SFTTrainer(str(work.model), args=config, train_dataset=table, processing_class=_processor(work))
    trainer.add_callback(meter.callback())
    trainer.train()
    return {"samples": work.epochs * len(work.samples)}


def own_sc_grpo(work: Work, meter: Meter) -> dict[str, float]:
    """The stage's training, with the seconds of its parts."""
    keys = _grpo_keys(work, work.completions, work.completions)
    with _parts(meter):
        outcome = sc_grpo.train(
            _job(work, meter, "sc_grpo", **keys),
            work.samples,
            validation=(),
            preset="paper",
            rewards=REWARDS,
            grid=3,
            recipe=RECIPES["paper"],
        )
    return _completed(work, outcome.history)


def trl_sc_grpo(
    work: Work, meter: Meter, *, rows: int, batch: int, checkpointing: bool, generations: int | None = None
) -> dict[str, float]:
    """TRL's trainer with the same objective, sampling and rewards, so many completions at once."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    functions, weights = trl_rewards("paper", REWARDS, 3)
    told = {**RECIPES["paper"].trainer, "reward_weights": list(weights), "log_completions": True, "num_completions_to_print": 0}
    ours = _grpo_keys(work, rows, batch) | ({"steps_per_generation": generations} if generations else {})
    config = GRPOConfig(**{**told, **_shared(work, checkpointing), **ours})
    table = [{**pa_sft.prompt_row(sample), "sample": sample.to_json()} for sample in work.samples]
    processor = _processor(work)
    processor.tokenizer.padding_side = "left"
    trainer = GRPOTrainer(
        str(work.model), reward_funcs=list(functions), args=config, train_dataset=_with_images(Dataset.from_list(table)), processing_class=processor
    )  # fmt: skip
    trainer.add_callback(meter.callback())
    with _parts(meter):
        trainer.train()
    return _completed(work, trainer.state.log_history)


@contextmanager
def _parts(meter: Meter) -> Iterator[None]:
    """Seconds of rollout (prompts to texts), reward and learner (both networks forward, backward, clipping and the update)."""
    import torch
    from accelerate import Accelerator
    from trl import GRPOTrainer

    with (
        meter.timing(
            GRPOTrainer,
            _generate="rollout",
            _calculate_rewards="reward",
            compute_loss="learner",
            _get_per_token_logps_and_entropies="learner",
        ),
        meter.timing(Accelerator, backward="learner", clip_grad_norm_="learner"),
        meter.timing(torch.optim.AdamW, step="learner"),
    ):
        yield


def _completed(work: Work, history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How many completions there were, their tokens and what they earned."""
    steps = [entry for entry in history if "completions/mean_length" in entry]
    means = {
        name: sum(entry[key] for entry in steps) / len(steps) for name, key in (("tokens", "completions/mean_length"), ("reward", "reward"))
    }
    return {"samples": work.steps * work.completions, **means}


def _job(work: Work, meter: Meter, stage: str, **keys: Any) -> Job:
    folder = work.folder / stage
    return Job(keys, work.model, work.max_pixels, (), 0, folder / "checkpoints", folder / "model", callbacks=[meter.callback()])


def _processor(work: Work) -> Any:
    return backbones.load_processor(work.model, max_pixels=work.max_pixels)


def _shared(work: Work, checkpointing: bool) -> dict[str, Any]:
    """What TRL's trainers get in every arm: the precision of the stages."""
    return {
        "output_dir": str(work.folder / "trl"), "report_to": "none", "bf16": _on_gpu(), "gradient_checkpointing": checkpointing, "seed": 0,
        "dataloader_pin_memory": _on_gpu(),
    }  # fmt: skip


def _sft_keys(work: Work, rows: int, batch: int) -> dict[str, Any]:
    return {"num_train_epochs": work.epochs, "logging_steps": 5, **_batch(rows, batch), **work.keys}


def _grpo_keys(work: Work, rows: int, batch: int) -> dict[str, Any]:
    steps = work.steps * work.completions // batch
    limits = {"max_completion_length": work.tokens, "num_generations": GROUP, "learning_rate": 1e-6}
    return {"max_steps": steps, "logging_steps": 1, **limits, **_batch(rows, batch), **work.keys}


def _batch(rows: int, batch: int) -> dict[str, Any]:
    at_once = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": batch // rows}
    return {**at_once, "save_strategy": "no", "disable_tqdm": True}


def _with_images(table: Any) -> Any:
    from datasets import Image
    from datasets import Sequence as Several

    return table.cast_column("images", Several(Image()))


@dataclass(frozen=True)
class Arm:
    """One way to train: what it is called in the table, and the training."""

    name: str
    train: Callable[..., dict[str, float]]
    options: Mapping[str, Any] = field(default_factory=dict)


def pa_sft_arms(work: Work) -> list[Arm]:
    """Ours, TRL with our settings, TRL's defaults (8 rows, checkpointing), and the recipe's 1 row times 8."""
    return [
        Arm("iadr1", own_pa_sft),
        Arm("TRL, same settings", trl_pa_sft, {"rows": work.batch, "batch": work.batch, "checkpointing": False}),
        Arm("TRL, its defaults", trl_pa_sft, {"rows": 8, "batch": work.batch, "checkpointing": True}),
        Arm("published recipe", trl_pa_sft, {"rows": 1, "batch": 8, "checkpointing": False}),
    ]


def sc_grpo_arms(work: Work) -> list[Arm]:
    """Ours, TRL with our settings, TRL's defaults, and the recipe's one prompt at once, each generated by itself, times 6."""
    return [
        Arm("iadr1", own_sc_grpo),
        Arm("TRL, same settings", trl_sc_grpo, {"rows": work.completions, "batch": work.completions, "checkpointing": False}),
        Arm("TRL, its defaults", trl_sc_grpo, {"rows": 8, "batch": work.completions, "checkpointing": True}),
        Arm("published recipe", trl_sc_grpo, {"rows": GROUP, "batch": 6 * GROUP, "checkpointing": True, "generations": 1}),
    ]
