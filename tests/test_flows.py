"""The flow on a real DVC project with Prefect's own server: what runs, what does not, and how it ends."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows import dvc, processes
from flows.processes import CommandFailed, Output

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
    assert "prepare: reads first" in capfd.readouterr().out

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


# dash stays beside the stage that it starts and tells its own exit code, bash becomes the stage.
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
@pytest.mark.parametrize(
    "word, line, explained",
    [
        ("broken", "prepare: fetched.txt is broken; mend it.", True),
        ("crash", "ValueError: nobody thought of this", False),
        ("kill", "prepare was killed; run again to go on where it stopped", False),
        ("end", "prepare was killed; run again to go on where it stopped", False),
        ("stop", "prepare: asked to stop (SIGTERM); the next run resumes.", True),
    ],
)
def test_a_failed_stage_ends_with_why_it_failed_and_not_with_what_it_said_before(dvc_project, monkeypatch, shell, word, line, explained):
    monkeypatch.setenv("SHELL", shell)
    Path("source.txt").write_text(word)
    terminal = io.BytesIO()
    dvc.run_stage(Path("dvc.yaml"), "fetch", log=lambda text: None, terminal=terminal)
    with pytest.raises(dvc.StageFailed) as failed:
        dvc.run_stage(Path("dvc.yaml"), "prepare", log=lambda text: None, terminal=terminal)
    assert (str(failed.value), failed.value.explained) == (line, explained)
    assert word in ("kill", "end") or line in terminal.getvalue().decode()


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
from flows import dvc, processes
signal.signal(signal.SIGTERM, signal.default_int_handler)
dvc.run_stage(Path("dvc.yaml"), "fetch", log=print, terminal=sys.stdout.buffer)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_with_the_flow_ends_everything_that_a_stage_has_started(dvc_project, number):
    Path("slow.py").write_text(SLOW)
    Path("dvc.yaml").write_text("stages: {fetch: {cmd: python slow.py, outs: [fetched.txt]}}")
    process = subprocess.Popen([sys.executable, "-c", RUNNER], env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    assert comes_true(lambda: Path("pid").is_file() and Path("pid").read_text())
    stage = int(Path("pid").read_text())
    process.send_signal(number)
    process.wait(60)
    assert comes_true(lambda: not is_running(stage))


STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


def test_an_exception_ends_what_other_threads_run_and_are_about_to_run():
    command = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(600)"]
    begun, codes = threading.Event(), []

    def runs():
        codes.append(processes.run(command, log=lambda line: begun.set(), terminal=io.BytesIO()).code)

    first, late = threading.Thread(target=runs), threading.Thread(target=runs)
    with pytest.raises(KeyboardInterrupt), processes.ended_together():
        first.start()
        assert begun.wait(60)
        raise KeyboardInterrupt
    late.start()
    for thread in (first, late):
        thread.join(60)
    assert codes == [143, 143]
    with processes.ended_together():
        assert processes.run([sys.executable, "-c", ""], log=print, terminal=io.BytesIO()).code == 0


def leashed(*command, seconds=0.5):
    words = [sys.executable, "-I", "-S", str(processes.LEASH), str(seconds), *command]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_what_is_let_go_at_once_is_asked_to_end_and_not_killed_after_a_while():
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    codes = []
    for _ in range(20):
        process = leashed(*command, seconds=5)
        process.stdin.close()
        codes.append(process.wait(30))
    assert set(codes) == {143}


def test_what_does_not_end_when_asked_is_killed_with_what_has_left_its_session():
    process = leashed(sys.executable, "-c", STUBBORN)
    stubborn = [int(pid) for pid in process.stdout.readline().split()]
    process.stdin.close()
    process.wait(30)
    assert not any(map(is_running, stubborn))


@pytest.mark.parametrize(
    "script, code", [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137), ("import sys; sys.stdin.read()", 0)]
)
def test_a_leashed_command_ends_as_it_would_alone(script, code):
    assert leashed(sys.executable, "-c", script).wait(30) == code


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
    out = Output(logged.append, terminal, dvc._CHATTER)
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


# An evaluation that ends only when another one runs beside it, or when it is the last.
MATRIX = """
stages:
  fetch: {cmd: python stage.py fetch source.txt fetched.txt, deps: [source.txt], outs: [fetched.txt]}
  evaluate:
    matrix: {dataset: [a, b, c, d]}
    cmd: python beside.py ${item.dataset}
    deps: [fetched.txt, beside.py]
    outs: ["out/${item.dataset}.txt"]
"""
BESIDE = """
import os, sys, time
from pathlib import Path
name = sys.argv[1]
Path("running").mkdir(exist_ok=True)
here = Path("running", name)
here.write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
most, until = 0, time.monotonic() + 20
while most < 2 and time.monotonic() < until:
    most = max(most, len(list(Path("running").iterdir())))
    time.sleep(0.05)
time.sleep(1)
most = max(most, len(list(Path("running").iterdir())))
Path("out").mkdir(exist_ok=True)
Path("out", f"{name}.txt").write_text(f"{most} {here.read_text()}")
here.unlink()
"""


def test_evaluations_run_side_by_side_on_gpus_of_their_own(dvc_project, prefect_server, monkeypatch):
    from flows.release import release

    Path("dvc.yaml").write_text(MATRIX)
    Path("beside.py").write_text(BESIDE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    release()
    assert states() == dict.fromkeys(["fetch", *(f"evaluate@{name}" for name in "abcd")], "Completed")
    told = [Path("out", f"{name}.txt").read_text().split() for name in "abcd"]
    assert max(int(most) for most, _ in told) == 2
    assert {gpu for _, gpu in told} == {"4", "7"}
    assert not dvc.plan(Path("dvc.yaml")).due


@pytest.mark.parametrize(
    "visible, told, expected",
    [
        ("", None, [""]),
        ("", "3", ["", "", ""]),
        ("0", None, ["0"]),
        ("0,1,2,3", None, ["0", "1", "2", "3"]),
        ("0,1,2,3", "2", ["0,2", "1,3"]),
        ("0,1", "1", ["0,1"]),
        ("0,1", "3", ["0", "1", "0"]),
    ],
)
def test_each_evaluation_gets_its_share_of_the_gpus(visible, told, expected, monkeypatch):
    from flows.evaluations import AT_ONCE, slots

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv(AT_ONCE, told) if told else monkeypatch.delenv(AT_ONCE, raising=False)
    assert slots() == expected


@pytest.mark.parametrize("told", ["0", "two", "-1", ""])
def test_a_wrong_number_of_evaluations_is_refused_by_name(told, monkeypatch):
    from flows.evaluations import slots

    monkeypatch.setenv("IADR1_EVALUATIONS", told)
    with pytest.raises(CommandFailed, match=r"\$IADR1_EVALUATIONS: has to be a whole number above 0"):
        slots()


@pytest.mark.parametrize(("name", "words"), [("root", []), ("not-composed", ["--experiment", "not-composed"])])
def test_a_second_release_tells_who_runs_before_it_writes_anything_and_ends_with_a_code_of_its_own(
    name, words, dvc_project, prefect_server, monkeypatch, capfd
):
    from flows import release
    from flows.lock import alone

    monkeypatch.setattr(sys, "argv", ["flows.release", *words])
    with alone(name), pytest.raises(SystemExit) as ended:
        release.main()
    said = capfd.readouterr().err
    assert ended.value.code == 75
    assert f"another release of this project runs: process {os.getpid()} of" in said and "Wait for it, or stop it." in said
    with alone("another"), alone(name):
        pass


def test_a_release_in_another_folder_of_the_same_server_is_a_second_one_too(dvc_project, prefect_server, tmp_path_factory, monkeypatch):
    from flows.lock import Busy, alone

    with alone("elsewhere"):
        monkeypatch.chdir(tmp_path_factory.mktemp("clone"))
        with pytest.raises(Busy, match="holds the limit iadr1-release-elsewhere"), alone("elsewhere"):
            pass
    with alone("elsewhere"):
        pass


def final(flow, **parameters):
    state = flow(**parameters, return_state=True)
    return state.name, state.message


def test_a_retrain_skips_when_nothing_changed_and_runs_when_something_has(dvc_project, prefect_server, monkeypatch):
    from flows.lock import alone
    from flows.retrain import NOTHING, retrain

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("params.yaml").write_text("{fetch: {source: synthetic, manifest: null}, prepare: {reviews: null}}")
    assert final(retrain) == ("Completed", "released")
    assert final(retrain) == ("Skipped", NOTHING)
    assert final(retrain, reason="drift")[1].endswith("add images of what is new")
    Path("source.txt").write_text("new")
    with alone("root"):
        name, message = final(retrain)
    assert name == "Skipped" and "another release of this project runs" in message
    assert final(retrain) == ("Completed", "released")
    assert Path("reports/summary.md").read_text() == "new"


@pytest.mark.slow
def test_a_retrain_looks_again_where_the_graph_does_not_state_what_a_stage_reads(dvc_project, prefect_server, monkeypatch):
    from flows.retrain import NOTHING, retrain

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("params.yaml").write_text("{fetch: {source: folder, manifest: null}, prepare: {reviews: null}}")
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("    deps: [source.txt]\n", ""))
    assert final(retrain) == ("Completed", "released")
    assert final(retrain) == ("Skipped", NOTHING)
    Path("source.txt").write_text("arrived")
    assert final(retrain) == ("Completed", "released")
    assert Path("reports/summary.md").read_text() == "arrived"


@pytest.mark.slow
def test_a_person_at_a_terminal_reads_each_line_once(dvc_project, tmp_path):
    Path("params.yaml").write_text("{fetch: {source: synthetic, manifest: null}, prepare: {reviews: null}}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path / "prefect")}
    command = [sys.executable, "-m", "flows.retrain"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    for line in ("a person: changed since the last release: ", "prepare: reads first.", "released\n"):
        assert done.stdout.count(line) == 1, done.stdout
    assert "INFO" not in done.stdout


# Stand for commands that have tests of their own: what the flow is to make of their exit codes and files is the question here.
WATCH = """
import json, sys
from pathlib import Path
drifts = sys.argv[1] == "dark"
Path("reports").mkdir(exist_ok=True)
told = {"verdict": "drift" if drifts else "steady", "reason": "drift of brightness" if drifts else "none", "model": "iad-r1 version 3"}
Path("reports/watch.json").write_text(json.dumps(told))
Path("reports/watch.md").write_text("the verdict")
sys.exit("watch: too few images" if sys.argv[1] == "few" else 3 if drifts else 0)
"""
REGISTRY = """
import sys
from pathlib import Path
if sys.argv[2] == "promote":
    Path("promoted").write_text(repr(sys.argv[1:]))
    print("said")
sys.exit({"13": 3, "14": 1}.get(sys.argv[3], 0))
"""


def stand_for(module, text, monkeypatch):
    """Put a module of this text before the project's own; what else the project's package has can still be imported."""
    package, name = module.split(".")
    Path(package).mkdir(exist_ok=True)
    Path(package, "__init__.py").write_text(f"__path__.append({str(ROOT / package)!r})\n")
    Path(package, f"{name}.py").write_text(text)
    # Before what the environment of `make setup` imports at the start of every process.
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))


def test_drift_is_told_and_opens_a_retrain(dvc_project, prefect_server, monkeypatch):
    from flows.watch import watch

    stand_for("tasks._watch", WATCH, monkeypatch)
    stand_for("tasks._unwatched", "", monkeypatch)
    other = "{cmd: python stage.py other other_source.txt other.txt, deps: [other_source.txt], outs: [other.txt]}"
    Path("dvc.yaml").write_text(f"stages: {{other: {other}}}")
    assert final(watch, images="light") == ("Completed", "none")
    assert not Path("other.txt").is_file()
    assert final(watch, images="dark") == ("Drift", "drift of brightness")
    assert Path("other.txt").read_text() == "other"
    name, message = final(watch, images="few")
    assert name == "Failed" and "watch: too few images" in message


@pytest.mark.parametrize("version, code, said", [("7", 0, ""), ("13", 3, "the gates refuse iad-r1 13: said"), ("14", 1, "said")])
def test_who_runs_an_approval_says_yes_and_the_gates_have_the_last_word(tmp_path, prefect_server, monkeypatch, capfd, version, code, said):
    from flows import approve

    monkeypatch.chdir(tmp_path)
    stand_for("iadr1.__main__", REGISTRY, monkeypatch)
    monkeypatch.setattr(sys, "argv", ["flows.approve", version, "--who", "Ada", "--why", "three weeks on line 2"])
    with pytest.raises(SystemExit) as ended:
        approve.main()
    assert ended.value.code == code and said in capfd.readouterr().err
    words = ["registry", "promote", version, "--to", "production", "--who", "Ada", "--why", "three weeks on line 2", "--name", "iad-r1"]
    assert Path("promoted").read_text() == repr(words)


@pytest.mark.parametrize("who, why", [(" ", "a reason"), ("Ada", ""), ("Ada", "  ")])
def test_a_yes_needs_a_name_and_a_reason(who, why):
    from flows.approve import complete

    with pytest.raises(CommandFailed, match=r"a yes needs who says it, and why\. Nothing was promoted"):
        complete(who, why)


@pytest.mark.slow
def test_no_answer_in_time_promotes_nothing(tmp_path, prefect_server, monkeypatch):
    from flows.approve import approve

    monkeypatch.chdir(tmp_path)
    stand_for("iadr1.__main__", REGISTRY, monkeypatch)
    assert final(approve, version="9", timeout=1)[0] == "Failed"
    assert not Path("promoted").exists()


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
