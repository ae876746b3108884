"""The peak of a training's memory beside the plan's estimate: python -m tests.measured_training STAGE FOLDER prints both in bytes."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from iadr1 import pa_sft, sc_grpo
from iadr1.recipes import RECIPES
from iadr1.samples import Sample
from iadr1.training import Job
from tests.tiny import build, tiny_samples

SIDE, ROWS = 96, 32
KEYS = {"max_steps": 1, "per_device_train_batch_size": ROWS, "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}
GRPO = {"max_completion_length": 64, "num_generations": 4}


def main(stage: str, folder: Path) -> None:
    """Train a model small enough to be of no account, which loads what is loaded once, and then the one that is measured."""
    (folder / "images").mkdir()
    samples = [replace(sample, reasoning="An even grain. " * 8) for sample in tiny_samples(folder / "images", ROWS, side=SIDE)]
    train(stage, job(folder, "small", width=32, depth=1), samples[:4])
    measured = job(folder, "measured", width=256, depth=6)
    estimate = planned(stage, measured, samples)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    train(stage, measured, samples)
    print(json.dumps({"estimate": estimate, "measured": resident("VmHWM") - before}))


def job(folder: Path, name: str, *, width: int, depth: int) -> Job:
    """The training of a new model of this size."""
    build(folder / name, width=width, depth=depth, max_pixels=SIDE * SIDE)
    rows = {"per_device_train_batch_size": 4} if name == "small" else {}
    return Job({**KEYS, **rows}, folder / name, SIDE * SIDE, (), 0, folder / f"{name}-checkpoints", folder / f"{name}-trained")


def planned(stage: str, job: Job, samples: list[Sample]) -> float:
    """The plan's estimate."""
    if stage == "pa_sft":
        return sum(pa_sft.planned(job, samples).memory.values())
    return sum(sc_grpo.planned(replace(job, keys={**job.keys, **GRPO}), samples, recipe=RECIPES["paper"]).memory.values())


def train(stage: str, job: Job, samples: list[Sample]) -> None:
    """One step."""
    if stage == "pa_sft":
        pa_sft.train(job, samples, validation=())
        return
    rewards: dict[str, Any] = {"accuracy": 1.0}
    sc_grpo.train(replace(job, keys={**job.keys, **GRPO}), samples, validation=(), preset="paper", rewards=rewards, grid=3)


def resident(name: str) -> int:
    """Bytes of this process in memory: now (VmRSS), or the most since the last reset (VmHWM)."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return 1024 * int(found[1])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
