"""Samples a second of PA-SFT and SC-GRPO on a 2 M-parameter Qwen2.5-VL, against a bare training loop and TRL as it comes.

Run with `python -m benchmarks.bench_train [bare] [stock] [pa_sft] [generate] [sc_grpo]`.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from iadr1 import backbones, pa_sft, prompts, sc_grpo
from iadr1.engines import TransformersEngine
from iadr1.samples import Sample
from iadr1.training import Job
from tests.tiny import build, tiny_samples

ROWS, BATCH, EPOCHS, SIDE, STEPS, TOKENS = 64, 32, 3, 96, 4, 60
THOUGHT = "A narrow bright line crosses the {} part of this plate and stands out from the grain."


def main() -> None:
    """Print one line a measurement: a second of the clock, and of the processor (on a busy machine only the latter says much)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benches", nargs="*", default=list(BENCHES), help=f"of {', '.join(BENCHES)}")
    with tempfile.TemporaryDirectory() as folder:
        model, images = Path(folder, "model"), Path(folder, "images")
        images.mkdir()
        build(model, width=128, depth=4, max_pixels=SIDE * SIDE)
        samples = [_wordy(sample) for sample in tiny_samples(images, ROWS, side=SIDE)]
        for bench in parser.parse_args().benches:
            BENCHES[bench](model, samples, Path(folder))


def _wordy(sample: Sample) -> Sample:
    return replace(sample, reasoning=THOUGHT.format("left")[: 20 if sample.anomalous else 45])


@contextmanager
def _measured(name: str, count: int) -> Iterator[None]:
    clock, processor = time.perf_counter(), time.process_time()
    yield
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    sys.stdout.write(f"{name:34} {count / clock:7.1f} samples/s  {count / processor:7.1f} a processor second\n")
    sys.stdout.flush()


def _measuring(name: str, count: int) -> Any:
    """A callback that measures a training without what comes before and after it."""
    from transformers import TrainerCallback

    class Measure(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.measured = _measured(name, count)
            self.measured.__enter__()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.measured.__exit__(None, None, None)

    return Measure()


def bench_bare(model: Path, samples: Sequence[Sample], folder: Path) -> None:
    """Forward, backward and step on batches that are ready."""
    import torch

    network, batches = backbones.load_model(model).train(), _batches(model, samples)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    with _measured("bare loop", ROWS * EPOCHS):
        for batch in itertools.chain(*[batches] * EPOCHS):
            network(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()


def _batches(model: Path, samples: Sequence[Sample]) -> list[Mapping[str, Any]]:
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    inner = DataCollatorForVisionLanguageModeling(backbones.load_processor(model), completion_only_loss=True)
    collator, rows = pa_sft.Collator(inner, remember=2**30), list(pa_sft.rows(samples))
    batches = [collator(rows[at : at + BATCH]) for at in range(0, len(rows), BATCH)]
    sys.stdout.write(f"a batch is {tuple(batches[0]['input_ids'].shape)}, {int((batches[0]['labels'] >= 0).sum())} tokens are learned\n")
    return batches


def bench_stock(model: Path, samples: Sequence[Sample], folder: Path) -> None:
    """TRL as its example uses it."""
    from datasets import Image
    from datasets import Sequence as Several
    from trl import SFTConfig, SFTTrainer

    rows = pa_sft.rows(samples).cast_column("images", Several(Image()))
    config = SFTConfig(str(folder / "stock"), max_length=None, bf16=False, gradient_checkpointing=False, report_to="none", **_keys())
    trainer = SFTTrainer(str(model), args=config, train_dataset=rows, processing_class=backbones.load_processor(model))
    trainer.add_callback(_measuring("PA-SFT, TRL as it comes", ROWS * EPOCHS))
    trainer.train()


def bench_pa_sft(model: Path, samples: Sequence[Sample], folder: Path) -> None:
    """The stage's own path."""
    pa_sft.train(_job(model, folder, _measuring("PA-SFT", ROWS * EPOCHS), **_keys()), samples, validation=())


def _keys() -> dict[str, Any]:
    return {
        "num_train_epochs": EPOCHS, "per_device_train_batch_size": BATCH, "logging_steps": 5, "save_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip


def _job(model: Path, folder: Path, callback: Any, **keys: Any) -> Job:
    return Job(keys, model, SIDE * SIDE, (), 0, folder / "checkpoints", folder / "trained", callbacks=[callback])


def bench_generate(model: Path, samples: Sequence[Sample], folder: Path) -> None:
    """Greedy answers of the evaluation engine."""
    engine = TransformersEngine(model, batch_size=ROWS, max_new_tokens=TOKENS)
    chats = [prompts.messages(sample) for sample in samples]
    engine(chats[:2])
    with _measured(f"generate, up to {TOKENS} tokens", ROWS):
        answers = engine(chats)
    sys.stdout.write(f"tokens an answer: {sum(answer.tokens for answer in answers) / len(answers):.0f}\n")


def bench_sc_grpo(model: Path, samples: Sequence[Sample], folder: Path) -> None:
    """Rollouts, rewards, reference and update."""
    keys = {
        "max_steps": STEPS,
        "per_device_train_batch_size": ROWS,
        "max_completion_length": TOKENS,
        "save_strategy": "no",
        "logging_steps": 1,
    }
    rewards = {"consistency": 1.0, "accuracy": 1.0, "location": 1.0, "type": 1.0}
    job = _job(model, folder, _measuring("SC-GRPO (completions)", ROWS * STEPS), disable_tqdm=True, **keys)
    outcome = sc_grpo.train(job, samples, validation=(), preset="paper", rewards=rewards, grid=3)
    lengths = [entry["completions/mean_length"] for entry in outcome.history if "completions/mean_length" in entry]
    sys.stdout.write(f"tokens a completion: {sum(lengths) / len(lengths):.0f}\n")


BENCHES: dict[str, Callable[[Path, Sequence[Sample], Path], None]] = {
    "bare": bench_bare,
    "stock": bench_stock,
    "pa_sft": bench_pa_sft,
    "generate": bench_generate,
    "sc_grpo": bench_sc_grpo,
}

if __name__ == "__main__":
    main()
