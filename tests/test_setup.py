"""The set-up: locks that hold what pyproject.toml asks for, the import hook, and a second run that does nothing."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {profile: (ROOT / "requirements" / f"{profile}.txt").read_text().splitlines() for profile in ("cpu", "gpu")}


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~\[ ;]", requirement)[0].lower().replace("_", "-")


@pytest.mark.parametrize("profile", LOCKS)
def test_a_lock_pins_everything_that_the_project_asks_for(profile):
    asked = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][profile], *PROJECT["optional-dependencies"]["dev"]]
    assert {name_of(line) for line in asked} <= {name_of(line) for line in LOCKS[profile]}
    assert [line for line in LOCKS[profile] if not re.fullmatch(r"[a-z0-9.-]+==[^ +]+", line)] == []


def test_the_cpu_lock_holds_nothing_that_is_linked_against_cuda():
    names = {name_of(line) for line in LOCKS["cpu"]}
    assert not {name for name in names if name.startswith(("nvidia-", "cuda-"))} | names & {"torchaudio", "torchcodec", "triton"}


def test_both_locks_have_the_same_training_stack():
    same = ("torch", "torchvision", "transformers", "trl", "accelerate", "prefect", "mlflow", "dvc", "fastapi")
    pinned = [{line for line in LOCKS[profile] if name_of(line) in same} for profile in LOCKS]
    assert pinned[0] == pinned[1] and len(pinned[0]) == len(same)


def test_a_set_up_environment_is_left_as_it_is():
    stamp = ROOT / ".venv" / "iadr1-setup"
    if not stamp.is_file():
        pytest.skip("this environment was not made by `make setup`")
    before = stamp.stat().st_mtime_ns
    done = subprocess.run([sys.executable, "requirements/install.py"], cwd=ROOT, capture_output=True, text=True, timeout=5)
    assert (done.returncode, done.stdout, stamp.stat().st_mtime_ns) == (0, "", before)


def test_an_unknown_profile_is_told():
    done = subprocess.run([sys.executable, "requirements/install.py", "tpu"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "set-up: no lock for the profile 'tpu'; the profiles are cpu and gpu.\n")


def test_torchvision_can_be_imported_in_a_process_that_knows_of_nothing():
    code = "import torchvision.transforms.v2; print('imported')"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "imported\n"


def test_a_person_can_switch_telemetry_on_again():
    code = "import os, tasks._environment as e; e.start(); print(os.environ['DO_NOT_TRACK'], os.environ['VLLM_NO_USAGE_STATS'])"
    environment = {**os.environ, "DO_NOT_TRACK": "false"}
    environment.pop("VLLM_NO_USAGE_STATS", None)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.stdout == "false 1\n"
