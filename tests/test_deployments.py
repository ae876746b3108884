"""prefect.yaml on a real Prefect server with a worker: a retrain fires every minute, skips, and runs when an image was added; a cancel; an approval."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.layouts import picture
from tests.test_flows import comes_true, is_running

ROOT = Path(__file__).parents[1]
MINUTE = "* * * * *"
schedules_fire = pytest.mark.skipif(
    tuple(map(int, version("sqlalchemy").split(".")[:2])) >= (2, 1),
    reason="Prefect 3.7.7 schedules nothing with SQLAlchemy 2.1, which refuses its bulk insert of runs: install sqlalchemy<2.1",
)

# The real stage `fetch`, and one that stands for all that takes long: it counts the images, and sleeps while there is a file `hold`.
COUNT = """
import os, time
from pathlib import Path
Path("pid").write_text(str(os.getpid()))
while Path("hold").exists():
    time.sleep(0.2)
images = Path("data/parts/raw_manifest.csv").read_text().count(".png")
Path("reports/parts").mkdir(parents=True, exist_ok=True)
Path("reports/parts/summary.md").write_text(f"{images} images")
"""
# Stands for the registry's command, which has tests of its own: keeps what it is told, and refuses version 13 as the gates do.
REGISTRY = """
import sys
from pathlib import Path
words = sys.argv[1:]
print("version", words[2], "is a candidate")
if words[1] == "promote":
    with Path(os.environ["IADR1_HOME"], "promoted").open("a") as file:
        file.write(repr(words) + "\\n")
    sys.exit(3 if words[2] == "13" else 0)
""".replace("import sys", "import os, sys", 1)


def test_the_deployments_are_what_the_flows_are() -> None:
    """Entry points that exist, parameters that they take, and no schedule of a flow that needs an answer."""
    told = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    names = [deployment["name"] for deployment in told["deployments"]]
    assert names == ["release", "retrain", "watch", "approve", "backfill"]
    for deployment in told["deployments"]:
        path, function = deployment["entrypoint"].split(":")
        code = (ROOT / path).read_text()
        assert f'@flow(name="{deployment["name"]}"' in code and f"def {function}(" in code
        for trigger in deployment.get("triggers", ()):
            assert all(re.search(rf"\b{name}: str", code) for name in trigger["parameters"])
        assert deployment["work_pool"]["name"] == "iadr1"
    assert [deployment["name"] for deployment in told["deployments"] if deployment.get("schedules")] == ["retrain", "watch"]
    limited = [deployment["name"] for deployment in told["deployments"] if deployment.get("concurrency_limit", {}).get("limit") == 1]
    assert limited == ["release", "retrain", "watch", "backfill"]


@dataclass
class Orchestra:
    """A server with its deployments and a worker, in a project of two stages and one folder of images."""

    project: Path
    environment: dict[str, str]
    images: Path
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def command(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *words], cwd=self.project, env=self.environment, capture_output=True, text=True, timeout=1800
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def client(self) -> Any:
        from prefect.client.orchestration import SyncPrefectClient

        return SyncPrefectClient(self.environment["PREFECT_API_URL"])

    def runs(self, flow: str) -> list[Any]:
        """The runs of a flow that have begun, the first one first."""
        from prefect.client.schemas.filters import FlowFilter, FlowFilterName
        from prefect.client.schemas.sorting import FlowRunSort

        with self.client() as client:
            found = client.read_flow_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])), sort=FlowRunSort.START_TIME_ASC, limit=200
            )
        return [run for run in found if run.start_time is not None]

    def waits_for(self, flow: str, fact: Callable[[Any], bool], *, after: Any = None, seconds: float = 1800) -> Any:
        """The first run of a flow of which the fact is true, that began after `after`; fails with what there was instead."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            runs = [run for run in self.runs(flow) if after is None or run.start_time > after.start_time]
            if met := [run for run in runs if fact(run)]:
                return met[0]
            time.sleep(2)
        raise AssertionError([(run.name, run.state.name, run.state.message) for run in self.runs(flow)])


def ended(name: str) -> Callable[[Any], bool]:
    return lambda run: run.state.name == name


@pytest.fixture(scope="module")
def orchestra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestra]:
    """Started once; ended with all that it started."""
    folder = tmp_path_factory.mktemp("orchestra")
    project, images = folder / "project", folder / "images"
    make_project(project, images)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(project), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "IADR1_HOME": str(project),
    }
    here = Orchestra(project, environment, images)
    processes = here.processes
    processes += [started(here, folder / "server.log", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui")]
    try:
        answers(f"{environment['PREFECT_API_URL']}/health")
        here.command("work-pool", "create", "iadr1", "--type", "process")
        here.command("--no-prompt", "deploy", "--all")
        processes.append(started(here, folder / "worker.log", "worker", "start", "--pool", "iadr1", "--type", "process"))
        yield here
    finally:
        for process in reversed(processes):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(120)


def make_project(project: Path, images: Path) -> None:
    """A copy of the project whose graph is `fetch` and `count`, with an experiment that reads a folder, deployed to retrain every minute."""
    for number in range(3):
        picture(images / "bolt/train/good" / f"{number}.png")
    for name in ("flows", "tasks", "iadr1", "params.yaml", "prefect.yaml", ".dvc", ".dvcignore"):
        source = ROOT / name
        copied = shutil.copytree if source.is_dir() else shutil.copy
        options = {"ignore": shutil.ignore_patterns("__pycache__", "cache", "tmp")} if source.is_dir() else {}
        project.mkdir(exist_ok=True)
        copied(source, project / name, **options)
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    count = {"cmd": "python count.py", "deps": ["${experiment.fetched}"], "outs": [{"${experiment.reports}/summary.md": {"cache": False}}]}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"fetch": graph["fetch"], "count": count}}))
    (project / "count.py").write_text(COUNT)
    (project / "experiments").mkdir()
    (project / "experiments/parts.yaml").write_text("fetch: {source: folder}\n")
    told = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    for deployment in told["deployments"]:
        for schedule in deployment.get("schedules", ()):
            schedule["cron"], schedule["active"] = MINUTE, deployment["name"] == "retrain"
        if deployment["name"] == "retrain":
            deployment["parameters"] = {"experiment": "parts", "data": str(images)}
    (project / "prefect.yaml").write_text(yaml.safe_dump(told, sort_keys=False))
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)


def started(orchestra: Orchestra, log: Path, *words: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "prefect", *words]
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            cwd=orchestra.project,
            env=orchestra.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A worker ends by SIGINT, which a shell's background job would have it ignore.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def answers(url: str) -> None:
    import httpx

    deadline = time.monotonic() + 1800
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=10).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(1)
    raise AssertionError(f"{url} does not answer")


@schedules_fire
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_scheduled_retrain_fires_skips_and_runs_when_one_image_was_added(orchestra: Orchestra) -> None:
    first = orchestra.waits_for("retrain", ended("Completed"))
    assert first.auto_scheduled and first.state.message == "released"
    summary = orchestra.project / "reports/parts/summary.md"
    assert summary.read_text() == "3 images"

    skipped = orchestra.waits_for("retrain", ended("Skipped"), after=first)
    assert skipped.auto_scheduled and skipped.state.message == "skipped: nothing changed"
    assert len(orchestra.runs("release")) == 1

    picture(orchestra.images / "bolt/train/good/new.png", grey=7)
    second = orchestra.waits_for("retrain", ended("Completed"), after=skipped)
    assert second.auto_scheduled and summary.read_text() == "4 images"
    assert len(orchestra.runs("release")) == 2
    orchestra.waits_for("retrain", ended("Skipped"), after=second)


@schedules_fire
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_cancel_ends_the_whole_tree_and_the_next_run_goes_on(orchestra: Orchestra) -> None:
    from prefect.states import Cancelling

    run, stage = held(orchestra)
    with orchestra.client() as client:
        client.set_flow_run_state(run.id, Cancelling())
    cancelled = orchestra.waits_for("retrain", lambda found: found.id == run.id and found.state.is_final())
    assert cancelled.state.name == "Cancelled", cancelled.state
    assert not is_running(stage)
    (orchestra.project / "hold").unlink()
    orchestra.waits_for("retrain", ended("Completed"), after=run)
    images = len(list(orchestra.images.rglob("*.png")))
    assert (orchestra.project / "reports/parts/summary.md").read_text() == f"{images} images"


def held(orchestra: Orchestra) -> tuple[Any, int]:
    """A run of `retrain` whose stage would not end, and the stage's process."""
    pid, runs = orchestra.project / "pid", orchestra.runs("retrain")
    pid.unlink(missing_ok=True)
    (orchestra.project / "hold").touch()
    picture(orchestra.images / f"bolt/train/good/{time.time_ns()}.png", grey=time.time_ns() % 251)
    run = orchestra.waits_for(
        "retrain", lambda run: run.state.name == "Running" and pid.is_file() and pid.read_text(), after=runs[-1] if runs else None
    )
    return run, int(pid.read_text())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_approval_waits_without_a_worker_and_promotes_only_after_a_yes(orchestra: Orchestra) -> None:
    (orchestra.project / "iadr1/__main__.py").write_text(REGISTRY)
    promoted = orchestra.project / "promoted"
    yes, no, late, refused = (asked(orchestra, version, timeout) for version, timeout in (("7", 3600), ("8", 3600), ("9", 1), ("13", 3600)))
    person = {"who": "Ada", "why": "three weeks on line 2"}
    with orchestra.client() as client:
        for run, approve in ((yes, True), (no, False), (refused, True)):
            client.resume_flow_run(run, run_input={"approve": approve, **person})
    states = {name: final(orchestra, run) for name, run in (("yes", yes), ("no", no), ("late", late), ("refused", refused))}
    assert {name: state.name for name, state in states.items()} == {
        "yes": "Completed", "no": "Declined", "late": "Failed", "refused": "Refused",
    }  # fmt: skip
    assert "three weeks" in states["no"].message
    told = sorted(promoted.read_text().splitlines())
    assert len(told) == 2 and "'7', '--to', 'production', '--who', 'Ada', '--why', 'three weeks on line 2'" in told[1]


def asked(orchestra: Orchestra, version: str, timeout: int) -> Any:
    """A run of `approve` that waits for its person."""
    words = ("deployment", "run", "approve/approve", "-p", f"version={version}", "-p", f"timeout={timeout}")
    match = re.search(r"flow-run/([0-9a-f-]{36})|UUID: ([0-9a-f-]{36})", orchestra.command(*words))
    assert match
    run = match[1] or match[2]
    orchestra.waits_for("approve", lambda found: str(found.id) == run and found.state.name in ("Suspended", "Failed"))
    return run


def final(orchestra: Orchestra, run: str) -> Any:
    return orchestra.waits_for("approve", lambda found: str(found.id) == run and found.state.is_final()).state


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_the_pools_of_containers_can_be_made_and_deployed_to(orchestra: Orchestra, kind: str) -> None:
    template = ROOT / "infra/prefect" / f"{kind}.json"
    orchestra.command("work-pool", "create", kind, "--type", kind, "--base-job-template", str(template))
    orchestra.command("--no-prompt", "deploy", "-n", "release", "--pool", kind)
    with orchestra.client() as client:
        assert client.read_deployment_by_name("release/release").work_pool_name == kind


@schedules_fire
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_worker_that_is_told_to_end_takes_its_runs_along(orchestra: Orchestra) -> None:
    run, stage = held(orchestra)
    worker = orchestra.processes[-1]
    worker.send_signal(signal.SIGTERM)
    worker.wait(300)
    assert comes_true(lambda: not is_running(stage))
    assert orchestra.waits_for("retrain", lambda found: found.id == run.id).state.name != "Completed"
