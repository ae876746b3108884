"""The evaluate stage as a process: killed at any moment it loses next to nothing, and shared by processes it answers as alone."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from iadr1.samples import write_samples
from tests.test_stages_train import params, workspace
from tests.tiny import tiny_backbone, tiny_samples

ROOT = Path(__file__).parents[1]
KILLS, BATCH = 20, 4


def project(folder: Path, count: int) -> None:
    """A project folder with prepared test samples."""
    images = folder / "images"
    images.mkdir()
    samples = [replace(sample, reasoning=None) for sample in tiny_samples(images, count, dataset="mvtec")]
    write_samples(folder / "data" / "prepared" / "test" / "mvtec.jsonl", samples)


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A python module run in a project folder."""
    home = {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, **home, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_change_no_prediction_and_repeat_no_more_than_the_batch_in_flight(tmp_path: Path) -> None:
    project(tmp_path, 120)
    done = command(tmp_path, "tests.killed_run", str(tmp_path), str(tiny_backbone()), str(KILLS), "1")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found["killed"] == KILLS and found["in_between"] >= KILLS // 4
    assert found["twice"] <= KILLS * BATCH


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_answer_as_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path, 260)  # more than a part, so that each process has a share
    monkeypatch.chdir(tmp_path)
    workspace(params(evaluate={"models": ["base"], "batch_size": 64, "max_new_tokens": 2}))
    evaluate = ("tasks.evaluate", "--dataset", "mvtec", "--shots", "0")
    predictions, answers = tmp_path / "data" / "predictions" / "mvtec-0.jsonl", tmp_path / ".checkpoints" / "answers"
    found = []
    for processes in ("1", "2"):
        done = command(tmp_path, *evaluate, IADR1_PROCESSES=processes)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(predictions.read_bytes())
        assert len(list(answers.rglob("*.jsonl"))) == int(processes)
        for path in answers.rglob("*.jsonl"):
            path.unlink()
    assert found[0] == found[1]
    (tmp_path / "images" / "000.png").write_bytes(b"no image")
    done = command(tmp_path, *evaluate, IADR1_PROCESSES="2")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        f"evaluate: 1 of 260 images cannot be read: {tmp_path}/images/000.png. Restore or remove them, then run `dvc repro prepare`.",
    )
