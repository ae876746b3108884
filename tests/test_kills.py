"""SIGTERM and SIGKILL at five moments of each stage that takes long: run again, it ends with the bytes that an undisturbed run leaves."""

import json
import multiprocessing
import os
import runpy
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iadr1.samples import write_samples
from tests.test_stages_train import params
from tests.tiny import SIDE, build, tiny_samples

pytestmark = pytest.mark.slow

TEACH = "the form of answers"
STEPS = {"max_steps": 6, "save_steps": 2}
# Of PA-SFT and SC-GRPO: an event of the trainer at a step, or a file that is opened for writing.
MOMENTS: dict[str, tuple[str, int] | str] = {
    "before the first checkpoint": ("on_step_end", 1),
    "right after a checkpoint": ("on_save", 4),
    "while a checkpoint is written": "checkpoint-4/trainer_state.json",
    "during validation": ("on_prediction_step", 6),
    "while the final model is saved": ".partial/processor_config.json",
}
ANSWERS = "answers/mvtec-0"
PARTS = {
    "when the first model's answers are begun": f"{ANSWERS}/base-",
    "when the second model's answers are begun": f"{ANSWERS}/pa_sft-",
    "when the third model's answers are begun": f"{ANSWERS}/sc_grpo-",
    "while the predictions are written": "predictions/",
    "while the report is written": "reports/",
}
SIGNALS = [signal.SIGTERM, signal.SIGKILL]
LEFT = {
    **{stage: [f"models/{stage}/model.safetensors", f"reports/{stage}.json", f"reports/{stage}.csv"] for stage in ("pa_sft", "sc_grpo")},
    "evaluate": ["data/predictions/mvtec-0.jsonl", "reports/evaluate/mvtec-0.json"],
}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder before its first training: prepared samples, a tiny backbone and an MLflow store."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "images").mkdir()
    samples = [
        replace(sample, images=(str(Path(sample.images[0]).relative_to(folder)),))
        for sample in tiny_samples(folder / "images", 16, dataset="mvtec")
    ]
    unreasoned = [replace(sample, reasoning=None) for sample in samples]
    parts = {"pa_sft": samples[:8], "validation": samples[8:12], "sc_grpo": unreasoned[:8], "test/mvtec": unreasoned[10:]}
    for name, rows in parts.items():
        write_samples(folder / "data/prepared" / f"{name}.jsonl", rows)
    build(folder / "untaught")
    changes: dict[str, Any] = {
        "pa_sft": {"backbone": "backbone", **STEPS},
        "sc_grpo": {"max_completion_length": 32, **STEPS},
        "evaluate": {"batch_size": 2, "max_new_tokens": 32},
    }
    (folder / "params.yaml").write_text(json.dumps(params(**changes)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(start: Path) -> Callable[..., int]:
    """Runs a stage in a process of its own; its exit code, negative when a signal ended it. The libraries are loaded once, in a server of forks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded", "tests.test_kills"])

    def ran(folder: Path, stage: str, moment: tuple[str, int] | str | None = None, number: int = 0) -> int:
        process = context.Process(target=work, args=(folder, start / "mlflow.db", stage, moment, number))
        process.start()
        process.join(900)
        assert process.exitcode is not None, f"{stage} hangs"
        return process.exitcode

    return ran


def work(folder: Path, store: Path, stage: str, moment: tuple[str, int] | str | None, number: int) -> None:
    """Run a stage as `python -m tasks.<stage>` does, and send this process a signal at the moment."""
    import torch

    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{store}"
    if isinstance(moment, str):
        at_file(moment, number)
    elif moment is not None:
        at_event(*moment, number)
    if stage == TEACH:
        taught(folder)
        return
    sys.argv = [stage, *(["--dataset", "mvtec", "--shots", "0"] if stage == "evaluate" else [])]
    runpy.run_module(f"tasks.{stage}", run_name="__main__")


def at_event(event: str, step: int, number: int) -> None:
    """Send the signal once, after the trainer has told its callbacks of the event."""
    from transformers.trainer_callback import CallbackHandler

    original, sent = CallbackHandler.call_event, []

    def call_event(self: Any, name: str, args: Any, state: Any, control: Any, **others: Any) -> Any:
        result = original(self, name, args, state, control, **others)
        if (name, state.global_step) == (event, step) and not sent:
            sent.append(True)
            os.kill(os.getpid(), number)
        return result

    CallbackHandler.call_event = call_event


def at_file(part: str, number: int) -> None:
    """Send the signal once, when a file whose path holds `part` is opened for writing, and is still empty."""
    sent: list[bool] = []

    def audit(event: str, told: tuple[Any, ...]) -> None:
        if event == "open" and part in str(told[0]) and told[2] & (os.O_WRONLY | os.O_RDWR) and not sent:
            sent.append(True)
            os.kill(os.getpid(), number)

    sys.addaudithook(audit)


@pytest.fixture(scope="module")
def undisturbed(start: Path, run: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after its three stages have run undisturbed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "project"
    shutil.copytree(start, folder)
    assert run(folder, TEACH) == 0
    for stage in LEFT:
        assert run(folder, stage) == 0
    # Otherwise there would be nothing to lose.
    weights = [(folder / name / "model.safetensors").read_bytes() for name in ("backbone", "models/pa_sft", "models/sc_grpo")]
    assert len(set(weights)) == 3
    return folder


def taught(folder: Path) -> None:
    """Teach the backbone the form of the answers, and no more: what it knows by heart it says in each completion, and all earn the same."""
    from iadr1 import pa_sft
    from iadr1.samples import read_samples
    from iadr1.training import Job

    keys = {"max_steps": 80, "per_device_train_batch_size": 4, "learning_rate": 4e-3, "disable_tqdm": True, "save_strategy": "no"}
    job = Job(keys, folder / "untaught", SIDE * SIDE, (), 0, folder / "taught", folder / "backbone")
    pa_sft.train(job, read_samples(Path("data/prepared/pa_sft.jsonl")), validation=[])


def contents(folder: Path, stage: str) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in LEFT[stage]}


def before(undisturbed: Path, folder: Path, stage: str) -> None:
    """The project as it is before the stage; no answer has been kept."""
    shutil.copytree(undisturbed, folder, ignore=shutil.ignore_patterns(".checkpoints"))
    for name in LEFT[stage]:
        path = folder / name
        shutil.rmtree(path.parent) if name.startswith("models/") else path.unlink()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("stage", ["pa_sft", "sc_grpo"])
def test_a_training_that_is_killed_ends_with_the_bytes_of_an_undisturbed_one(
    undisturbed: Path, run: Callable[..., int], tmp_path: Path, stage: str, moment: str, number: signal.Signals
) -> None:
    folder = tmp_path / "project"
    before(undisturbed, folder, stage)
    code = run(folder, stage, MOMENTS[moment], int(number))
    # Within the training SIGTERM saves and ends with 143; outside of it it ends the process like any other.
    assert code in ((128 + signal.SIGTERM, -signal.SIGTERM) if number is signal.SIGTERM else (-signal.SIGKILL,))
    assert not (folder / "models" / stage).exists() and not (folder / "reports" / f"{stage}.json").exists()
    assert run(folder, stage) == 0
    assert contents(folder, stage) == contents(undisturbed, stage)
    assert not list(folder.rglob("*.partial")) and not [path for path in (folder / ".checkpoints").rglob("*") if path.is_file()]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("moment", PARTS)
def test_an_evaluation_that_is_killed_ends_with_the_bytes_of_an_undisturbed_one(
    undisturbed: Path, run: Callable[..., int], tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    folder = tmp_path / "project"
    before(undisturbed, folder, "evaluate")
    assert run(folder, "evaluate", PARTS[moment], int(number)) == -number
    assert not (folder / "reports/evaluate/mvtec-0.json").exists()
    assert run(folder, "evaluate") == 0
    assert contents(folder, "evaluate") == contents(undisturbed, "evaluate")
