"""An evaluation that is killed again and again while it asks: `python -m tests.killed_run FOLDER BACKBONE KILLS SEED`, used by test_evaluating.

The process loads the libraries once and forks for each run, so that a kill falls into the asking and not into an import. It prints, as JSON,
how many kills there were, how many of them found answers kept, how many answers were asked more than once and how many evaluations ended; of
each the predictions are those of a run that nothing disturbed.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.test_stages_train import FOLDERS, params, workspace

DATASET = "mvtec"


def main(folder: str, backbone: str, kills: str, seed: str) -> None:
    import mlflow  # noqa: F401
    import torch
    import transformers

    from iadr1.samples import read_samples
    from tasks import evaluate
    from tasks._asking import Candidate, Exam, ask_all

    assert transformers.AutoProcessor and transformers.AutoModelForImageTextToText
    torch.set_num_threads(1)
    os.chdir(folder)

    def run(name: str, *, asks_only: bool = False) -> int:
        """The id of a process that evaluates into folders of its own, or only asks."""
        child = os.fork()
        if child:
            return child
        tree = params(evaluate={"models": ["base"], "batch_size": 4, "max_new_tokens": 8})
        tree["experiment"] |= {key: f"{name}/{FOLDERS[key]}" for key in ("models", "reports", "checkpoints")}
        tree["pa_sft"]["backbone"] = backbone
        told, work = workspace(tree)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        try:
            if asks_only:
                exam = Exam(f"{DATASET}-0", told, work, read_samples(work.prepared / "test" / f"{DATASET}.jsonl"), 0)
                ask_all([Candidate("base", Path(backbone), base=True)], [exam])
            else:
                evaluate.main(told, work, dataset=DATASET, shots=0)
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)

    predictions, answers = Path("data/predictions", f"{DATASET}-0.jsonl"), Path("killed", FOLDERS["checkpoints"], "answers")
    assert _ended(run("whole"))
    expected = predictions.read_bytes()
    start = time.perf_counter()
    assert _ended(run("timed", asks_only=True))
    whole = time.perf_counter() - start
    chance, killed, in_between, twice, ended = random.Random(int(seed)), 0, 0, 0, 0
    while killed < int(kills):
        child = run("killed", asks_only=True)
        # Two of three kills come after this run's first answer, at any moment of the asking.
        if chance.random() < 2 / 3:
            while not list(answers.rglob(f"{child}-*.jsonl")) and os.waitpid(child, os.WNOHANG)[0] == 0:
                time.sleep(0.001)
        time.sleep(chance.uniform(0, whole / 4))
        if _alive(child):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            killed += 1
            in_between += bool(_kept(answers))
        if not _alive(child) and len(set(_kept(answers))) == expected.count(b"\n"):
            twice, ended = twice + _checked(run, predictions, expected, answers), ended + 1
    twice, ended = twice + _checked(run, predictions, expected, answers), ended + 1
    print(json.dumps({"killed": killed, "in_between": in_between, "twice": twice, "ended": ended}))


def _checked(run: Callable[[str], int], predictions: Path, expected: bytes, answers: Path) -> int:
    """End the killed evaluation, compare its predictions, and begin anew; how many answers were asked more than once."""
    predictions.unlink()
    assert _ended(run("killed"))
    assert predictions.read_bytes() == expected, "the predictions of the killed run are others"
    names = _kept(answers)
    shutil.rmtree("killed")
    return len(names) - len(set(names))


def _alive(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False


def _ended(child: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _kept(answers: Path) -> list[str]:
    """The names in all whole lines."""
    lines = [line for path in answers.rglob("*.jsonl") for line in path.read_bytes().split(b"\n")[:-1]]
    return [json.loads(line)["id"] for line in lines]


if __name__ == "__main__":
    main(*sys.argv[1:])
