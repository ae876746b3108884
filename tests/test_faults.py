"""The regression tests for known faults: which test finds which (tests/faults.py), and that it fails on an implementation that has the fault."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import FAULTS

ROOT = Path(__file__).parent.parent
CASES = [(name, test) for name, fault in FAULTS.items() for test in fault.found_by]


@pytest.mark.parametrize("name, test", CASES)
def test_every_fault_has_a_test_that_is_there(name: str, test: str) -> None:
    file, _, function = test.partition("[")[0].partition("::")
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    assert callable(getattr(module, function)) and FAULTS[name].about


@pytest.mark.slow
@pytest.mark.parametrize("name, test", CASES)
def test_a_fault_makes_its_test_fail(name: str, test: str) -> None:
    done = run(test, fault=name)
    assert done.returncode == 1 and "1 failed" in done.stdout and " error" not in done.stdout.splitlines()[-1], done.stdout[-3000:]


def run(test: str, *, fault: str) -> subprocess.CompletedProcess[str]:
    """The test alone, in an implementation that has the fault."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "tests.faults", test]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "IADR1_FAULT": fault}, timeout=1200)
