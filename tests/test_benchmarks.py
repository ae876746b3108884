"""The benchmarks run: each at a size that says nothing about speed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


def said(*arguments: str) -> str:
    """What a benchmark prints."""
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_core_is_measured() -> None:
    assert "report over 1,000 predictions" in said("benchmarks.bench_core", "--share", "1000")


def test_the_data_stages_are_measured() -> None:
    lines = said("benchmarks.bench_data", "200").splitlines()
    assert [line.split()[:2] for line in lines] == [["list", "200"], ["hash", "200"], ["validate", "200"]]


def test_both_trainings_are_measured_beside_the_others(tmp_path: Path) -> None:
    report = tmp_path / "figures.json"
    tables = said("benchmarks.bench_train", "--tiny", "--rounds", "1", "--json", str(report))
    assert tables.count("published recipe") == 3  # rates of both stages, shares of one
    measured = json.loads(report.read_text())["measured"]
    assert all(len(rows) == 4 and all(row["samples"] > 0 and row["processor"] > 0 for row in rows) for rows in measured.values())
    shares = measured["sc_grpo"][0]["parts"]
    assert set(shares) == {"rollout", "reward", "learner"} and 0 < sum(shares.values()) <= measured["sc_grpo"][0]["processor"]


def test_both_trainings_run_as_on_a_gpu() -> None:
    tables = said("benchmarks.bench_gpu", "--tiny", "--rounds", "1")
    assert tables.count("llava_onevision") == tables.count("qwen2_5_vl") == 2


def test_the_scaling_of_a_step_is_measured() -> None:
    assert said("benchmarks.bench_scaling", "--tiny", "--rounds", "1").count("M ") == 4
