"""Samples a second of PA-SFT and SC-GRPO on a 2 M-parameter Qwen2.5-VL, against a bare training loop and TRL as it comes.

Run with `python -m benchmarks.bench_train [pa_sft] [sc_grpo]`.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from iadr1 import backbones, pa_sft
from iadr1.samples import Sample
from iadr1.training import Job
from tests.tiny import build, tiny_samples

ROWS, BATCH, EPOCHS, SIDE = 64, 32, 2, 96
THOUGHT = "A narrow bright line crosses the {} part of this plate and stands out from the even grain around it, so this part is not as it should be."


def main() -> None:
    """Print one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", default=["pa_sft", "sc_grpo"])
    with tempfile.TemporaryDirectory() as folder:
        model, images = Path(folder, "model"), Path(folder, "images")
        images.mkdir()
        build(model, width=128, depth=4, max_pixels=SIDE * SIDE)
        samples = [_wordy(sample) for sample in tiny_samples(images, ROWS, side=SIDE)]
        for stage in parser.parse_args().stages:
            BENCHES[stage](model, samples, Path(folder))


def _wordy(sample: Sample) -> Sample:
    return replace(sample, reasoning=THOUGHT.format("upper left" if sample.anomalous else "lower right")[: 20 if sample.anomalous else 45])


def bench_pa_sft(model: Path, samples: Sequence[Sample], folder: Path) -> None:
    """The bare loop, TRL as it comes, and the stage's own path."""
    _report("pa_sft bare loop", ROWS * EPOCHS, lambda: _bare_loop(model, samples))
    _report("pa_sft TRL as it comes", ROWS * EPOCHS, lambda: _stock(model, samples, folder))
    _report("pa_sft", ROWS * EPOCHS, lambda: _train(pa_sft.train, model, samples, folder))


def _report(name: str, count: int, work: Callable[[], float]) -> None:
    seconds = work()
    sys.stdout.write(f"{name:28} {count / seconds:7.1f} samples/s ({seconds:.1f} s)\n")
    sys.stdout.flush()


def _bare_loop(folder: Path, samples: Sequence[Sample]) -> float:
    import torch

    model, batches = backbones.load_model(folder).train(), _batches(folder, samples)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    start = time.perf_counter()
    for batch in itertools.chain(*[batches] * EPOCHS):
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - start


def _batches(folder: Path, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    collator, rows = _collator(folder), list(pa_sft.rows(samples))
    batches = [collator(rows[at : at + BATCH]) for at in range(0, len(rows), BATCH)]
    sys.stdout.write(
        f"tokens of a batch: {tuple(batches[0]['input_ids'].shape)}, of them learned: {int((batches[0]['labels'] > 0).sum())}\n"
    )
    return batches


def _collator(folder: Path) -> pa_sft.Collator:
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    return pa_sft.Collator(
        DataCollatorForVisionLanguageModeling(backbones.load_processor(folder), completion_only_loss=True), remember=2**30
    )


def _keys() -> dict[str, Any]:
    return {
        "num_train_epochs": EPOCHS, "per_device_train_batch_size": BATCH, "logging_steps": 5, "save_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip


def _stock(model: Path, samples: Sequence[Sample], folder: Path) -> float:
    from datasets import Image, Sequence as Several
    from trl import SFTConfig, SFTTrainer

    rows = pa_sft.rows(samples).cast_column("images", Several(Image()))
    config = SFTConfig(str(folder / "stock"), max_length=None, bf16=False, gradient_checkpointing=False, report_to="none", **_keys())
    trainer = SFTTrainer(str(model), args=config, train_dataset=rows, processing_class=backbones.load_processor(model))
    start = time.perf_counter()
    trainer.train()
    return time.perf_counter() - start


def _train(train: Callable[..., Any], model: Path, samples: Sequence[Sample], folder: Path) -> float:
    job = Job(_keys(), model, SIDE * SIDE, (), 0, folder / "checkpoints", folder / "trained")
    outcome = train(job, samples, validation=())
    return float(next(entry["train_runtime"] for entry in reversed(outcome.history) if "train_runtime" in entry))


BENCHES = {"pa_sft": bench_pa_sft}

if __name__ == "__main__":
    main()
