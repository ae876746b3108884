"""Trainings of a few steps, one after the other, in as many processes as torchrun starts: `-m tests.shared_run FOLDER CASE ...`."""

import itertools
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from iadr1 import pa_sft, sc_grpo
from iadr1.samples import Sample, read_samples
from iadr1.training import Job, Outcome
from iadr1.verdict import Verdict

ROOT = Path(__file__).parent.parent
RANK, PROCESSES, ROWS = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")), 8
STEPS = 5
KEYS: dict[str, Any] = {
    "max_steps": STEPS, "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True, "max_grad_norm": 0.5,
}  # fmt: skip
# Plain gradient descent: Adam would make a step of full size even from a rounding error.
STAGES = {
    "pa_sft": {"per_device_train_batch_size": 2, "learning_rate": 1e-3},
    "sc_grpo": {"per_device_train_batch_size": ROWS, "learning_rate": 0.1, "optim": "sgd"},
}
# The place of a completion in the batch of all processes decides what it says and what it earns.
SHARE = ROWS // PROCESSES
PLACES = range(RANK * SHARE, (RANK + 1) * SHARE)
PLACE = itertools.cycle(PLACES)


def place(verdict: Verdict, sample: Sample, grid: int) -> float:
    """A reward that differs within each group, the same on any number of processes."""
    return float(next(PLACE) * 7 % 5)


def said(*_: Any, **__: Any) -> tuple[list[list[int]], None]:
    """Tokens in place of sampled ones, which differ between processes."""
    return [[20 + (at * 11 + token * 7) % 100 for token in range(4 + at % 3)] for at in PLACES], None


def train(stage: str, job: Job, samples: list[Sample]) -> Outcome:
    """The stage's training, its completions decided by their place."""
    if stage == "pa_sft":
        return pa_sft.train(job, samples, validation=())
    with sc_grpo._unimported("vllm"):
        from trl import GRPOTrainer

    GRPOTrainer._generate_single_turn = said
    return sc_grpo.train(job, samples, validation=(), preset="paper", rewards={f"{__file__}:place": 1.0}, grid=3)


def counts(steps: list[int]) -> Any:
    """A callback that notes each step that is taken."""
    from transformers import TrainerCallback

    class Count(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            steps.append(state.global_step)

    return Count()


def main(folder: Path, case: str) -> None:
    """Train as STAGE[-ZERO][-lora|-resumed] says, into a folder of that name and of the number of processes."""
    stage, *told = case.split("-")
    into = folder / f"{case}-{PROCESSES}"
    into.mkdir(exist_ok=True)
    keys = KEYS | STAGES[stage]
    for word in told:
        if word.startswith("zero"):
            keys["deepspeed"] = str(ROOT / "infra" / "deepspeed" / f"{word}.json")
    lora = {"r": 4} if "lora" in told else {}

    steps: list[int] = []
    job = Job(
        keys, folder / "model", None, (), 0, folder / f"{into.name}-checkpoints", into, callbacks=[counts(steps)],
        global_batch_size=ROWS, processes=PROCESSES, lora=lora,
    )  # fmt: skip
    samples = read_samples(folder / "samples.jsonl")
    if "resumed" in told:
        train(stage, replace(job, keys={**keys, "max_steps": 3, "save_strategy": "steps", "save_steps": 2}), samples)
    outcome = train(stage, job, samples)
    if RANK == 0:
        (into / "outcome.json").write_text(json.dumps({"parts": outcome.parts, "steps": steps}), encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[2:]:
        main(Path(sys.argv[1]), name)
