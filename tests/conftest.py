"""What tests share: an MLflow store, a DVC project and Prefect's server, each of a size that starts quickly."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks._environment import switch_telemetry_off

switch_telemetry_off()
os.environ.pop("MLFLOW_TRACKING_URI", None)

GRAPH = """
stages:
  fetch:
    cmd: python stage.py fetch source.txt fetched.txt
    deps: [source.txt]
    outs: [fetched.txt]
  prepare:
    cmd: python stage.py prepare fetched.txt prepared.txt
    deps: [fetched.txt]
    outs: [prepared.txt]
  other:
    cmd: python stage.py other other_source.txt other.txt
    deps: [other_source.txt]
    outs: [other.txt]
  register:
    cmd: python stage.py register prepared.txt reports/summary.md
    deps: [prepared.txt, other.txt]
    outs:
      - reports/summary.md: {cache: false}
"""

# Passes on the first word of its source; "broken" is an error that it explains, "crash" one that it does not, "kill" and "end" are signals,
# "stop" is an end in good order after a SIGTERM.
STAGE = """
import os, signal, sys
from pathlib import Path
name, source, target = sys.argv[1:]
word = Path(source).read_text().split()[0]
print(f"{name}: reads {word}.", flush=True)
if name == "prepare" and word == "broken":
    sys.exit("prepare: fetched.txt is broken; mend it.")
if name == "prepare" and word == "crash":
    raise ValueError("nobody thought of this")
if name == "prepare" and word in ("kill", "end"):
    os.kill(os.getpid(), signal.SIGKILL if word == "kill" else signal.SIGTERM)
if name == "prepare" and word == "stop":
    print("prepare: asked to stop (SIGTERM); the next run resumes.", file=sys.stderr)
    sys.exit(143)
Path(target).parent.mkdir(exist_ok=True)
Path(target).write_text(word)
"""


@pytest.fixture
def dvc_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real DVC project of four stages, as the working folder."""
    files = {"dvc.yaml": GRAPH, "stage.py": STAGE, "source.txt": "first", "other_source.txt": "other"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    return tmp_path


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """Prefect's own test server, started once: it takes half a minute."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=240):
        yield


@pytest.fixture(scope="module")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with an MLflow store of its own; made once a module, because making the database takes seconds."""
    folder, before = tmp_path_factory.mktemp("mlflow"), Path.cwd()
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    yield folder
    os.chdir(before)
    del os.environ["MLFLOW_TRACKING_URI"]
