"""Trainings of a few steps, one after the other, in as many processes as torchrun starts: `-m tests.shared_run FOLDER CASE ...`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from iadr1 import pa_sft, sc_grpo
from iadr1.samples import Sample, read_samples
from iadr1.training import Job, Outcome
from tests import one_step
from tests.one_step import PROCESSES, RANK, ROWS, said

ROOT = Path(__file__).parent.parent
STEPS = 5
KEYS: dict[str, Any] = {
    "max_steps": STEPS, "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True, "max_grad_norm": 0.5,
}  # fmt: skip
# Plain gradient descent: Adam would make a step of full size even from a rounding error.
STAGES = {
    "pa_sft": {"per_device_train_batch_size": 2, "learning_rate": 1e-3},
    "sc_grpo": {"per_device_train_batch_size": ROWS, "learning_rate": 0.1, "optim": "sgd"},
}


def train(stage: str, job: Job, samples: list[Sample], validation: Sequence[Sample] = ()) -> Outcome:
    """The stage's training, its completions decided by their place."""
    if stage == "pa_sft":
        return pa_sft.train(job, samples, validation=validation)
    with sc_grpo._unimported("vllm"):
        from trl import GRPOTrainer

    GRPOTrainer._generate_single_turn = said
    return sc_grpo.train(job, samples, validation=(), preset="paper", rewards={f"{one_step.__file__}:place": 1.0}, grid=3)


def counts(steps: list[int]) -> Any:
    """A callback that notes each step that is taken."""
    from transformers import TrainerCallback

    class Count(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            steps.append(state.global_step)

    return Count()


def main(folder: Path, case: str) -> None:
    """Train as STAGE[-ZERO][-lora|-resumed|-best] says, into a folder of that name and of the number of processes."""
    stage, *told = case.split("-")
    into = folder / f"{case}-{PROCESSES}"
    into.mkdir(exist_ok=True)
    keys = KEYS | STAGES[stage]
    for word in told:
        if word.startswith("zero"):
            keys["deepspeed"] = str(ROOT / "infra" / "deepspeed" / f"{word}.json")
    if "best" in told:
        keys |= {"save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": True}
    lora = {"r": 4} if "lora" in told else {}

    steps: list[int] = []
    job = Job(
        keys, folder / "model", None, (), 0, folder / f"{into.name}-checkpoints", into, callbacks=[counts(steps)],
        global_batch_size=ROWS, processes=PROCESSES, lora=lora,
    )  # fmt: skip
    samples = read_samples(folder / "samples.jsonl")
    if "resumed" in told:
        train(stage, replace(job, keys={**keys, "max_steps": 3, "save_strategy": "steps", "save_steps": 2}), samples)
    # Of what it is trained on the loss falls with each step: the best model is the last.
    outcome = train(stage, job, samples, samples[:4] if "best" in told else ())
    if RANK == 0:
        (into / "outcome.json").write_text(
            json.dumps({"parts": outcome.parts, "steps": steps, "best": outcome.best_step}), encoding="utf-8"
        )


if __name__ == "__main__":
    for name in sys.argv[2:]:
        main(Path(sys.argv[1]), name)
