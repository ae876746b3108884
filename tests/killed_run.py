"""An evaluation that is killed again and again at random moments: `python -m tests.killed_run FOLDER BACKBONE KILLS SEED`, used by test_evaluating.

The process loads the libraries once and forks for each run, so that a kill falls into the evaluation and not into an import. It prints, as
JSON, how many kills there were, how many of them fell into a run that had kept something, how many answers were asked more than once and how
many evaluations ended; in each the predictions are those of a run that nothing disturbed.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from tests.test_stages_train import FOLDERS, params, workspace

DATASET = "mvtec"


def main(folder: str, backbone: str, kills: str, seed: str) -> None:
    import mlflow  # noqa: F401
    import torch
    import transformers

    from tasks import evaluate

    assert transformers.AutoProcessor and transformers.AutoModelForImageTextToText
    torch.set_num_threads(1)
    os.chdir(folder)

    def run(name: str) -> int:
        """The id of a process that evaluates into folders of its own."""
        child = os.fork()
        if child:
            return child
        tree = params(evaluate={"models": ["base"], "batch_size": 4, "max_new_tokens": 24})
        tree["experiment"] |= {key: f"{name}/{FOLDERS[key]}" for key in ("models", "reports", "checkpoints")}
        tree["pa_sft"]["backbone"] = backbone
        told, work = workspace(tree)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        try:
            evaluate.main(told, work, dataset=DATASET, shots=0)
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)

    predictions, answers = Path("data/predictions", f"{DATASET}-0.jsonl"), Path("killed", FOLDERS["checkpoints"], "answers")
    assert _ended(run("whole"))
    start = time.perf_counter()
    shutil.rmtree("whole")
    assert _ended(run("whole"))
    whole, expected = time.perf_counter() - start, predictions.read_bytes()
    chance, killed, in_between, twice, ended = random.Random(int(seed)), 0, 0, 0, 0
    while True:
        predictions.unlink(missing_ok=True)
        child = run("killed")
        if killed < int(kills):
            time.sleep(chance.uniform(0.2, 0.7) * whole)
            if os.waitpid(child, os.WNOHANG)[0] == 0:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                killed += 1
                in_between += bool(_kept(answers))
                continue
        else:
            assert _ended(child)
        assert predictions.read_bytes() == expected, "the predictions of the killed run are others"
        names = _kept(answers)
        twice += len(names) - len(set(names))
        ended += 1
        shutil.rmtree("killed")
        if killed >= int(kills):
            break
    print(json.dumps({"killed": killed, "in_between": in_between, "twice": twice, "ended": ended}))


def _ended(child: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _kept(answers: Path) -> list[str]:
    """The names in all whole lines."""
    lines = [line for path in answers.rglob("*.jsonl") for line in path.read_bytes().split(b"\n")[:-1]]
    return [json.loads(line)["id"] for line in lines]


if __name__ == "__main__":
    main(*sys.argv[1:])
