"""The real chain, end to end, in the reduced profile `experiments/smoke.yaml`: run twice, and stopped by force in between."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("flows", "tasks", "iadr1", "experiments", "backbones", "params.yaml", "dvc.yaml", ".dvc", ".dvcignore", "pyproject.toml")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with a git repository of its own."""
    here = tmp_path_factory.mktemp("project")
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, here / name, ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp", "smoke", "real", "rows"))
        elif source.is_file():
            shutil.copy(source, here / name)
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "start"]):
        subprocess.run(["git", *command], cwd=here, check=True)
    return here


def _dvc(project: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=project, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.timeout(900)
def test_the_chain_runs_to_a_registered_inspector_and_a_second_run_does_nothing(project: Path) -> None:
    composed = subprocess.run([sys.executable, "-m", "tasks._experiment", "smoke"], cwd=project, capture_output=True, text=True, check=True)
    pipeline = composed.stdout.strip()
    _dvc(project, "repro", pipeline)
    summary = json.loads((project / "reports/smoke/summary.json").read_text())
    assert set(summary["models"]) == {"base", "pa_sft", "sc_grpo"}
    for model in summary["models"].values():
        assert set(model["datasets"]) == {"mvtec", "sdd"}
        assert all(entry["n"] == 16 and 0 <= entry["balanced_accuracy"] <= 100 for entry in model["datasets"].values())
    assert summary["registered"]["name"] == "iad-r1-smoke"
    again = _dvc(project, "repro", pipeline)
    assert "Running stage" not in again
    assert "data/smoke" in _dvc(project, "dag", "--outs", pipeline)
