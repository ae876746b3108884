"""What CI runs: workflows that give nothing away, an action that is red when the gate is, and the gate itself on real DVC projects."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tasks import _gate
from tasks._gate import Side, stale_stages
from tests.test_chain import project  # noqa: F401

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTION = ROOT / ".github" / "actions" / "gate" / "action.yml"
GITLAB = ROOT / "infra" / "ci" / "gitlab.yml"
OUTSIDE = re.compile(r"\$\{\{[^}]*(github\.event|github\.head_ref|inputs\.|secrets\.)")
# The one thing that a job may write: a comment with the decision.
WRITES = {("gate.yml", "comment"): {"pull-requests": "write"}}


def told(path: Path) -> dict:
    return yaml.load(path.read_text(), yaml.BaseLoader)


def steps(path: Path) -> list[dict]:
    tree = told(path)
    jobs = tree["jobs"].values() if "jobs" in tree else [tree["runs"]]
    return [step for job in jobs for step in job["steps"]]


@pytest.mark.parametrize("path", [*WORKFLOWS, ACTION], ids=lambda path: path.name)
def test_every_action_is_pinned_and_nothing_from_outside_is_part_of_a_script(path):
    for step in steps(path):
        used, script = step.get("uses", ""), step.get("run", "")
        assert not used or used.startswith("./") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", used), used
        assert not OUTSIDE.search(script), script
        if used.startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] == "false"
    pinned = re.findall(r"uses: [\w./-]+@[0-9a-f]{40}(.*)", path.read_text())
    assert all(re.fullmatch(r" # v\d+\.\d+\.\d+", version) for version in pinned)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_do_nothing_that_a_job_does_not_ask_for(path):
    tree = told(path)
    assert tree["permissions"] == {}
    for name, job in tree["jobs"].items():
        assert int(job["timeout-minutes"]) > 0
        assert job["permissions"] == WRITES.get((path.name, name), {"contents": "read"})
    assert "pull_request_target" not in tree["on"] and "workflow_run" not in tree["on"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_pull_request_gets_no_secret_and_no_machine_of_ours(path):
    tree = told(path)
    if "pull_request" in tree["on"]:
        assert not re.search(r"\{\{[^}]*secrets", path.read_text())
        assert "self-hosted" not in str([job["runs-on"] for job in tree["jobs"].values()])


def test_the_gate_runs_when_anything_changes_that_a_stage_is_made_from():
    watched = told(ROOT / ".github" / "workflows" / "gate.yml")["on"]["pull_request"]["paths"]
    (in_gitlab,) = [rule["changes"] for rule in told(GITLAB)["iadr1-gate"]["rules"]]
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    code = {dep.partition("/")[0] for stage in stages for dep in stage["deps"] if not dep.startswith("$")}
    for folder in (*code, "experiments", "backbones", "requirements"):
        assert f"{folder}/**" in watched and f"{folder}/**/*" in in_gitlab
    assert {"params.yaml", "dvc.yaml", "dvc.lock"} <= set(watched) & set(in_gitlab)


CHECKER = shutil.which("check-jsonschema")


@pytest.mark.skipif(CHECKER is None, reason="check-jsonschema is not installed: pip install -r infra/ci/tools.txt")
@pytest.mark.parametrize(
    "schema, files",
    [("github-workflows", WORKFLOWS), ("github-actions", [ACTION]), ("gitlab-ci", [GITLAB])],
)  # fmt: skip
def test_the_files_have_the_form_that_their_services_ask_for(schema, files):
    transform = ["--data-transform", "gitlab-ci"] if schema == "gitlab-ci" else []
    done = subprocess.run([str(CHECKER), "--builtin-schema", f"vendor.{schema}", *transform, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "given, expected, code",
    [
        ({"BASE": "abc"}, ["--base", "abc"], 0),
        ({"BASE": "abc", "LIVE": "models:/iad-r1@production"}, ["--live", "models:/iad-r1@production"], 3),
        ({"BASE": "abc", "EXPERIMENT": "smoke", "LOCKED": "true"}, ["--base", "abc", "--experiment", "smoke", "--locked"], 1),
    ],
)
def test_the_action_asks_the_gate_and_ends_as_it_does(tmp_path, given, expected, code):
    (script,) = [step["run"] for step in steps(ACTION) if step.get("id") == "decide"]
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > asked; mkdir -p out; echo "| gate |" > out/decision.md; exit {code}\n')
    python.chmod(0o755)
    files = {"GITHUB_OUTPUT": "told", "GITHUB_STEP_SUMMARY": "summary"}
    environment = {"LIVE": "", "EXPERIMENT": "", "LOCKED": "false", "OUTPUT": "out", **given, **files, "PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], cwd=tmp_path, env=environment)
    assert done.returncode == code
    assert (tmp_path / "asked").read_text().split() == ["-m", "tasks._gate", "--output", "out", *expected]
    assert (tmp_path / "told").read_text() == f"code={code}\n" and (tmp_path / "summary").read_text() == "| gate |\n"


def test_what_a_dry_run_would_run_is_read():
    said = "Stage 'fetch' didn't change, skipping\nRunning stage 'pa_sft':\n> python -m tasks.pa_sft\n\nRunning stage 'x/dvc.yaml:evaluate@visa-0':\n"
    assert stale_stages(said) == ["evaluate@visa-0", "pa_sft"]
    assert stale_stages("Stage 'fetch' didn't change, skipping\nData and pipelines are up to date.\n") == []


def test_the_code_of_a_change_learns_of_no_registry(tmp_path, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_AUTH_STRING", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "told")
    told = Side(tmp_path, None).run(
        sys.executable, "-c", "import os; print(*[name for name, value in os.environ.items() if value == 'told'])"
    )
    assert told.split() == ["MLFLOW_DISABLE_TELEMETRY"]


def test_a_commit_that_is_not_there_is_no_pass(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    assert _gate.main(["--base", "nowhere"]) == 1
    assert "Fetch that commit, or name another with --base." in capsys.readouterr().err


# A project of one stage: how many of the defects are seen stands in a parameter, so that a change of it is cheap to evaluate.
STAGE = """
import json, sys
from pathlib import Path
seen = int(Path("seen.txt").read_text())
Path("data/predictions").mkdir(parents=True, exist_ok=True)
with Path(f"data/predictions/{sys.argv[1]}-0.jsonl").open("w") as lines:
    for number in range(200):
        yes = number < seen
        text = f"<think>{'There is a scratch.' if yes else 'Even.'}</think><answer>{'Yes' if yes else 'No'}</answer>"
        row = {"sample_id": f"{sys.argv[1]}/{number}", "dataset": sys.argv[1], "category": "part", "model": "sc_grpo", "anomalous": number < 100, "text": text}
        print(json.dumps(row), file=lines)
"""
GRAPH = """
stages:
  evaluate:
    matrix: {dataset: [mvtec, visa]}
    cmd: python answers.py ${item.dataset}
    deps: [answers.py, seen.txt]
    outs: ["data/predictions/${item.dataset}-0.jsonl"]
  register:
    cmd: "false"
    deps: [data/predictions]
"""


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments], check=True, capture_output=True)


def change(seen: int) -> None:
    Path("seen.txt").write_text(str(seen))
    git("add", "-A")
    git("commit", "--allow-empty", "-qm", f"sees {seen}")


@pytest.fixture
def answering(dvc_project: Path) -> Path:
    """A repository with a commit that sees 90 of 100 defects on each of two data sets."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["evaluate"]["datasets"] = {name: tree["evaluate"]["datasets"][name] for name in ("mvtec", "visa")}
    tree["register"]["gates"] = {"no_regression": {"points": 3.0, "images": 100}, "mean_balanced_accuracy": 60.0}
    for name, text in {"params.yaml": yaml.safe_dump(tree), "dvc.yaml": GRAPH, "answers.py": STAGE}.items():
        Path(name).write_text(text)
    Path(".gitignore").write_text("/data/\n/reports/\nmlflow.db*\n")
    git("add", "-A")
    change(90)
    git("tag", "before")
    return dvc_project


@pytest.mark.slow
@pytest.mark.parametrize("seen, code", [(70, 3), (90, 0), (95, 0)])
def test_a_change_is_decided_beside_the_commit_before(answering, capfd, seen, code):
    change(seen)
    assert _gate.main(["--base", "before", "--output", "reports/gate"]) == code
    report = Path("reports/gate/decision.md").read_text()
    assert report.strip() in capfd.readouterr().out
    assert ("refused" in report.lower()) is (code == 3)
    assert git_said("worktree", "list").count("\n") == 1, "the base's folder is gone"


@pytest.mark.slow
def test_with_a_lock_nothing_runs_here_and_a_stale_one_is_no_pass(answering, tmp_path_factory, capfd):
    dvc("remote", "add", "--default", "store", str(tmp_path_factory.mktemp("store")))
    assert _gate.main(["--live", "none", "--locked"]) == 1
    assert "dvc.lock is not committed, so nothing says what was evaluated." in capfd.readouterr().err
    dvc("repro", "evaluate")
    dvc("push")
    git("add", "-A")
    git("commit", "-qm", "locked")
    shutil.rmtree("data")
    shutil.rmtree(".dvc/cache")
    Path("answers.py").touch()
    assert _gate.main(["--live", "none", "--locked"]) == 0
    assert len(list(Path("data/predictions").iterdir())) == 2
    change(70)
    assert _gate.main(["--live", "none", "--locked"]) == 1
    assert "dvc.lock is out of date: evaluate@mvtec, evaluate@visa would run." in capfd.readouterr().err


def dvc(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, capture_output=True)


def git_said(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


# PA-SFT as in params.yaml, which is what it takes to see something; little else.
SEEING = """
sc_grpo: {max_steps: 1}
evaluate:
  datasets: {dagm: {layout: dagm, folder: dagm}}
  models: [sc_grpo]
  max_new_tokens: 160
register:
  gates: {mean_balanced_accuracy: 50.0, no_regression: {points: 3.0, images: 100}}
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_real_chain_is_red_where_a_change_lowers_its_accuracy(project, monkeypatch, capfd):  # noqa: F811
    """Answers are cut off after two tokens: what was trained is taken from DVC's run cache, and evaluated again."""
    monkeypatch.chdir(project)
    seeing = Path("experiments/seeing.yaml")
    seeing.write_text(SEEING)
    git("add", "-A")
    git("commit", "-qm", "an experiment that sees")
    git("tag", "before")
    seeing.write_text(SEEING.replace("max_new_tokens: 160", "max_new_tokens: 2"))
    git("commit", "-qam", "faster answers")
    assert _gate.main(["--base", "before", "--experiment", "seeing"]) == 3
    report = Path("reports/gate/decision.md").read_text()
    assert "| no_regression" in report and "**refused**" in report and report.strip() in capfd.readouterr().out
