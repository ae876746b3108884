"""One step of a training in as many processes as torchrun starts: python -m torch.distributed.run -m tests.one_step STAGE FOLDER."""

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

from iadr1 import pa_sft, sc_grpo
from iadr1.samples import Sample, read_samples
from iadr1.training import Job
from iadr1.verdict import Verdict

RANK, PROCESSES, ROWS = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")), 8
# Plain gradient descent: Adam would make a step of full size even from a rounding error.
KEYS = {
    "max_steps": 1,
    "optim": "sgd",
    "learning_rate": 1.0,
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
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


def main(stage: str, folder: Path) -> None:
    """Train one step from the folder's model and samples; the first process saves the model and says what it took at once."""
    samples = read_samples(folder / "samples.jsonl")
    into = folder / f"{stage}-{PROCESSES}"
    into.mkdir(exist_ok=True)
    keys = {**KEYS, "per_device_train_batch_size": 2 if stage == "pa_sft" else ROWS}
    job = Job(keys, folder / "model", None, (), 0, folder / f"{into.name}-checkpoints", into, global_batch_size=ROWS, processes=PROCESSES)
    if stage == "pa_sft":
        outcome = pa_sft.train(job, samples, validation=())
    else:
        from trl import GRPOTrainer

        GRPOTrainer._generate_single_turn = said
        outcome = sc_grpo.train(job, samples, validation=(), preset="paper", rewards={f"{__file__}:place": 1.0}, grid=3)
    if RANK == 0:
        (into / "history.json").write_text(json.dumps(list(outcome.history)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
