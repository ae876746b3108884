"""`make table` end to end on a grid of two rows: stopped in between, resumed, and run again for nothing."""

import json
import os
import signal
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

from flows.table import Pace
from tests import test_chain

project = test_chain.project

MINI = """
fetch: {train_images: 600, test_images: 8}
prepare: {pa_sft_rows: 32, sc_grpo_rows: 16, validation_rows: 8}
validate: {minimum_rows: 4}
pa_sft: {num_train_epochs: 1}
sc_grpo: {max_steps: 1, max_completion_length: 16}
evaluate: {datasets: {sdd: {layout: sdd, folder: sdd}}, max_new_tokens: 16}
"""
GRID = """
title: Two rows
rows:
  - {label: Fine-tuned, model: pa_sft}
  - {label: Original, model: sc_grpo, change: {sc_grpo: {rewards: {accuracy: 1.0}}}}
claims:
  - {says: rewards teach, order: [Fine-tuned, Original]}
"""


def started(project: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "flows.table", "two", "--seeds", "0", "--profile", "mini"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Making Prefect's database takes minutes on a busy machine.
    patience = {"PREFECT_HOME": str(project / ".prefect"), "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "600"}
    environment = {**os.environ, "PATH": path, **patience}
    return subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_table_that_was_stopped_goes_on_and_a_second_run_does_nothing(project: Path) -> None:
    (project / "experiments/mini.yaml").write_text(MINI)
    (project / "experiments/tables/two.yaml").write_text(GRID)
    stopped = started(project)
    assert stopped.stdout is not None
    shown = list(takewhile(lambda line: not line.startswith("pa_sft ..."), stopped.stdout))
    assert stopped.poll() is None, shown
    stopped.send_signal(signal.SIGTERM)
    stopped.communicate(timeout=300)
    assert stopped.returncode == 130

    resumed, _ = started(project).communicate(timeout=1800)
    page = (project / "reports/tables/mini-two.md").read_text()
    assert "4 stages to run" in resumed or "5 stages to run" in resumed, resumed
    assert "fetch ..." not in resumed and page in resumed and "[5 of 5" in resumed
    assert not list(project.glob("models/rows/*/*/pa_sft")) and list(project.glob("models/rows/*/*/sc_grpo/model.safetensors"))
    told = json.loads((project / "reports/tables/mini-two.json").read_text())["settings"]["0-shot"]
    assert all(0 <= row["mean"] <= 100 for row in told["rows"].values()) and told["claims"][0]["parts"]

    again, _ = started(project).communicate(timeout=900)
    assert "2 runs, 0 stages to run" in again and page in again


def test_the_time_left_is_told_as_far_as_it_is_known() -> None:
    pace = Pace()
    assert pace.told(["evaluate@mvtec-0"]) == ""
    pace.took("evaluate@mvtec-0", 60)
    pace.took("evaluate@visa-0", 120)
    assert pace.told(["evaluate@sdd-0", "evaluate@dtd-0"]) == ", about 3 min"
    assert pace.told(["sc_grpo", "evaluate@sdd-0"]) == ", more than 2 min"
