"""The flow on a real DVC project with Prefect's own server: what runs, what does not, and how it ends."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows import dvc
from flows.dvc import Output

ROOT = Path(__file__).parent.parent


def states():
    """State names by stage, from Prefect's records of the last flow run."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        (flow_run,) = client.read_flow_runs(limit=1, sort=FlowRunSort.START_TIME_DESC)
        for _ in range(60):  # the server records task runs a moment after they end
            runs = [run for run in client.read_task_runs(limit=200) if run.flow_run_id == flow_run.id]
            if runs and all(run.state is not None and run.state.is_final() for run in runs):
                break
            time.sleep(0.5)
        return {run.name: run.state.name for run in runs}


def test_a_release_runs_what_changed_and_nothing_else(dvc_project, prefect_server, capfd):
    from flows.release import release

    release()
    assert states() == dict.fromkeys(["fetch", "prepare", "other", "register"], "Completed")
    assert "prepare reads first" in capfd.readouterr().out

    release()
    assert states() == dict.fromkeys(["fetch", "prepare", "other", "register"], "UpToDate")
    assert "reads" not in capfd.readouterr().out

    Path("source.txt").write_text("first but longer")
    release()
    assert states() == {"fetch": "Completed", "prepare": "UpToDate", "other": "UpToDate", "register": "UpToDate"}

    Path("source.txt").write_text("broken")
    with pytest.raises(dvc.StageFailed, match=r"^prepare: fetched\.txt is broken; mend it\.$"):
        release()
    failed = states()
    assert failed["prepare"] == "Failed" and "register" not in failed


def test_the_summary_is_left_as_an_artifact(dvc_project, prefect_server):
    from prefect.artifacts import Artifact

    from flows.release import release

    release()
    page = Artifact.get("release-summary").data
    assert "| prepare | done |" in page and page.endswith("first")


def test_the_plan_says_what_waits_for_what_and_what_changed(dvc_project):
    plan = dvc.plan(Path("dvc.yaml"))
    order = list(plan.upstream)
    assert plan.upstream["register"] == {"prepare", "other"}
    assert order.index("fetch") < order.index("prepare") < order.index("register")
    assert plan.changed == set(order)
    assert plan.must_run("register", frozenset())


def test_a_project_that_dvc_cannot_read_is_told_in_its_words(dvc_project):
    Path("dvc.yaml").write_text("stages: {fetch: {cmd: x, out: [y]}}")
    with pytest.raises(dvc.DvcError, match=r"dvc\.yaml"):
        dvc.plan(Path("dvc.yaml"))


@pytest.mark.parametrize(
    "word, line, explained",
    [("broken", "prepare: fetched.txt is broken; mend it.", True), ("crash", "ValueError: nobody thought of this", False)],
)
def test_a_failed_stage_ends_with_its_own_words(dvc_project, word, line, explained):
    Path("source.txt").write_text(word)
    terminal = io.BytesIO()
    dvc.run_stage(Path("dvc.yaml"), "fetch", log=lambda text: None, terminal=terminal)
    with pytest.raises(dvc.StageFailed) as failed:
        dvc.run_stage(Path("dvc.yaml"), "prepare", log=lambda text: None, terminal=terminal)
    assert (str(failed.value), failed.value.explained) == (line, explained)
    assert line in terminal.getvalue().decode()


def test_only_a_failure_that_nobody_explained_is_tried_again():
    from flows.release import RETRIES, worth_another_try

    for explained in (True, False):
        failure = dvc.StageFailed("fetch", "…", explained=explained)
        assert worth_another_try(None, None, SimpleNamespace(result=lambda raise_on_failure, failure=failure: failure)) is not explained
    assert set(RETRIES) == {"fetch"}


SLOW = "import os, time; from pathlib import Path; Path('pid').write_text(str(os.getpid())); time.sleep(600)"
RUNNER = """
import signal, sys
from pathlib import Path
from flows import dvc
signal.signal(signal.SIGTERM, signal.default_int_handler)
dvc.run_stage(Path("dvc.yaml"), "fetch", log=print, terminal=sys.stdout.buffer)
"""


def test_stopping_a_stage_stops_everything_that_it_started(dvc_project):
    Path("slow.py").write_text(SLOW)
    Path("dvc.yaml").write_text("stages: {fetch: {cmd: python slow.py, outs: [fetched.txt]}}")
    process = subprocess.Popen([sys.executable, "-c", RUNNER], env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    assert comes_true(lambda: Path("pid").is_file() and Path("pid").read_text())
    stage = int(Path("pid").read_text())
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert comes_true(lambda: not is_running(stage))


def comes_true(fact, seconds=120):
    deadline = time.monotonic() + seconds
    while not fact() and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(fact())


def is_running(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.is_file() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def output(*chunks):
    logged, terminal = [], io.BytesIO()
    out = Output(logged.append, terminal)
    for chunk in chunks:
        out.feed(chunk)
    out.end()
    return terminal.getvalue(), logged


def test_a_progress_bar_is_shown_at_once_and_logged_at_its_end():
    bars = [f"\r{percent}%|##| {percent}/100 [10.0it/s]".encode() for percent in range(0, 101, 10)]
    terminal, logged = output(b"loading\n", *bars, b"\n", b"done")
    assert terminal == b"loading\n" + b"".join(bars) + b"\ndone\n"
    assert logged == ["loading", "100%|##| 100/100 [10.0it/s]", "done"]


def test_a_bar_is_on_the_terminal_before_its_line_ends():
    terminal = io.BytesIO()
    out = Output(lambda text: None, terminal)
    out.feed(b"\r 10%")
    assert terminal.getvalue() == b"\r 10%"


def test_what_dvc_says_about_itself_is_logged_and_not_shown():
    terminal, logged = output(b"Running stage 'fetch':\n> python -m tasks.fetch\nworking\nUpdating lock file 'dvc.lock'\n")
    assert terminal == b"working\n"
    assert len(logged) == 4


@pytest.mark.parametrize(
    "arguments, code, said", [(["--data", "x"], 2, "make run EXPERIMENT=real DATA=x"), (["--experiment", "rael"], 1, "did you mean real?")]
)
def test_a_command_that_cannot_start_says_what_to_do(prefect_server, arguments, code, said, monkeypatch, capfd):
    from flows import release

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["flows.release", *arguments])
    with pytest.raises(SystemExit) as ended:
        release.main()
    assert ended.value.code == code
    assert said in capfd.readouterr().err
