"""The whole stack on real servers: accounts, kills, pages in a browser, a run that is interrupted, and a release with its promotions."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import pytest

from infra.stack.process import processes
from infra.stack.services import NAMES, Stack, stack
from tests import chromium

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
ROOT = Path(__file__).parent.parent
FLOW = """
from prefect import flow, task

@task
def fetch(): return 1
@task
def train(images): return images
@task
def evaluate(model): return model
@flow
def release():
    images = fetch()
    evaluate.submit(train(images)).result()
release()
"""


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All services, started; pictures of the pages go to $SCREENSHOTS."""
    for module in ("psycopg", "flask_wtf"):
        pytest.importorskip(module)
    made = stack(tmp_path_factory.mktemp("stack"))
    try:
        made.start()
        yield made
    finally:
        made.stop()
        assert not made.running


@dataclass(frozen=True)
class Shown:
    """What was recorded for the pages to show."""

    experiment: str
    runs: list[str]


@pytest.fixture(scope="module")
def recorded(services: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Two runs with metrics, parameters and artifacts, and two versions with aliases, through MLflow's own client."""
    before = dict(os.environ)
    os.environ.update(services.environment)
    from mlflow import MlflowClient

    client = MlflowClient(services.environment["MLFLOW_TRACKING_URI"])
    experiment = client.create_experiment("iadr1-stack")
    runs = []
    for number in (1, 2):
        run = client.create_run(experiment, run_name=f"release {number}").info
        client.log_param(run.run_id, "sc_grpo.max_steps", number)
        client.log_metric(run.run_id, "sc_grpo.mean_balanced_accuracy", 70.0 + number)
        client.log_text(run.run_id, f"decision of release {number}", "decision.md")
        client.set_terminated(run.run_id)
        runs.append(run.run_id)
    client.create_registered_model("iad-r1-stack")
    for number, alias in ((1, "previous"), (2, "production")):
        client.create_model_version("iad-r1-stack", f"mlflow-artifacts:/{experiment}/{runs[number - 1]}/artifacts", run_id=runs[number - 1])
        client.set_registered_model_alias("iad-r1-stack", alias, str(number))
    yield Shown(experiment, runs)
    for name in services.environment:
        os.environ.pop(name, None)
    os.environ.update(before)


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            urllib.request.Request(url, headers=headers), timeout=60
        ) as page:
            return int(page.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def basic(account: str) -> str:
    return f"Basic {base64.b64encode(account.encode()).decode()}"


def test_both_servers_ask_who_is_there_and_mlflow_by_which_name_it_was_called(services: Stack) -> None:
    mlflow = f"{services.environment['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/search?max_results=1"
    prefect = f"{services.environment['PREFECT_API_URL']}/admin/version"
    account = f"admin:{services.environment['MLFLOW_TRACKING_PASSWORD']}"
    assert (status(mlflow), status(mlflow, Authorization=basic("admin:guess")), status(mlflow, Authorization=basic(account))) == (
        401,
        401,
        200,
    )
    assert status(mlflow, Authorization=basic(account), Host="evil.example") == 403
    assert (status(prefect), status(prefect, Authorization=basic(services.environment["PREFECT_API_AUTH_STRING"]))) == (401, 200)


def test_every_service_listens_on_loopback_alone(services: Stack) -> None:
    ports = {f"{service.port:04X}" for service in services.services.values()}
    listening = [line.split()[1].split(":") for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"]
    assert {port for address, port in listening if port in ports and address == "0100007F"} == ports
    assert not [address for address, port in listening if port in ports and address != "0100007F"]


def test_no_log_holds_a_secret(services: Stack) -> None:
    secrets = services.services["mlflow"].secrets
    for service in services.services.values():
        text = (service.folder / "log").read_text(errors="replace")
        assert not [secret for secret in secrets if secret in text], service.name


@pytest.mark.parametrize("name", NAMES)
def test_what_was_recorded_is_there_after_a_kill_of_any_service(services: Stack, recorded: Shown, name: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    services.services[name].kill()
    assert not services.services[name].healthy()
    services.services[name].start()
    client = MlflowClient(services.environment["MLFLOW_TRACKING_URI"])
    assert client.get_run(recorded.runs[1]).data.metrics == {"sc_grpo.mean_balanced_accuracy": 72.0}
    assert client.get_model_version_by_alias("iad-r1-stack", "production").version == "2"
    got = download_artifacts(run_id=recorded.runs[0], artifact_path="decision.md", dst_path=str(tmp_path))
    assert Path(got).read_text() == "decision of release 1"
    client.set_tag(recorded.runs[0], "after", name)
    assert all(service.healthy() for service in services.services.values())


@pytest.fixture(scope="module")
def browser(services: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    if chromium.PROGRAM is None:
        pytest.skip("needs Chromium")
    with chromium.chromium(tmp_path_factory.mktemp("browser"), "about:blank") as page:
        page.call("Network.enable")
        page.resize(1400, 1000)
        yield page
        asked = {urlparse(event["params"]["request"]["url"]) for event in page.events if event["method"] == "Network.requestWillBeSent"}
        assert {url.hostname for url in asked if url.scheme.startswith("http")} == {"127.0.0.1"}


def visit(browser: chromium.Page, url: str, *words: str) -> None:
    """Open a page of another origin or none before, and wait until it says these words."""
    browser.call("Page.navigate", url="about:blank")
    browser.call("Page.navigate", url=url)
    for word in words:
        browser.until(f"document.body.innerText.includes({word!r})", seconds=180)


def keep(browser: chromium.Page, name: str) -> None:
    """Take a picture where somebody wants to look at it."""
    if folder := os.environ.get("SCREENSHOTS"):
        time.sleep(3)
        browser.screenshot(Path(folder) / f"{name}.png")


def let_in(browser: chromium.Page, account: str) -> None:
    browser.call("Network.setExtraHTTPHeaders", headers={"Authorization": basic(account)})


def test_mlflow_shows_runs_side_by_side_their_artifacts_and_which_version_is_live(
    services: Stack, recorded: Shown, browser: chromium.Page
) -> None:
    let_in(browser, f"admin:{services.environment['MLFLOW_TRACKING_PASSWORD']}")
    page = f"{services.environment['MLFLOW_TRACKING_URI']}/#"
    runs = "%2C".join(f"%22{run}%22" for run in recorded.runs)
    visit(
        browser,
        f"{page}/compare-runs?runs=%5B{runs}%5D&experiments=%5B%22{recorded.experiment}%22%5D",
        "release 1",
        "release 2",
        "max_steps",
    )
    keep(browser, "mlflow-compared")
    visit(browser, f"{page}/experiments/{recorded.experiment}/runs/{recorded.runs[0]}/artifacts", "decision.md")
    keep(browser, "mlflow-artifacts")
    visit(browser, f"{page}/models/iad-r1-stack", "Version 2", "production", "previous")
    keep(browser, "mlflow-model")


def flow_run(environment: dict[str, str], tmp_path: Path) -> str:
    """Run a flow of three tasks against the server, and return its id."""
    (tmp_path / "flow.py").write_text(FLOW)
    subprocess.run([sys.executable, "flow.py"], cwd=tmp_path, env={**os.environ, **environment}, check=True, capture_output=True)
    return newest_flow_run(environment)


def newest_flow_run(environment: dict[str, str]) -> str:
    """The id of the flow run that started last, as Prefect's API tells it."""
    headers = {"Authorization": basic(environment["PREFECT_API_AUTH_STRING"]), "Content-Type": "application/json"}
    body = json.dumps({"sort": "START_TIME_DESC", "limit": 1}).encode()
    asked = urllib.request.Request(f"{environment['PREFECT_API_URL']}/flow_runs/filter", data=body, headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=60) as answer:
        return str(json.load(answer)[0]["id"])


def test_prefect_shows_a_flow_run_with_its_graph(services: Stack, browser: chromium.Page, tmp_path: Path) -> None:
    run = flow_run(dict(services.environment), tmp_path)
    let_in(browser, services.environment["PREFECT_API_AUTH_STRING"])
    page = services.environment["PREFECT_API_URL"].removesuffix("/api")
    visit(browser, page)
    password = base64.b64encode(services.environment["PREFECT_API_AUTH_STRING"].encode()).decode()
    browser.until("localStorage !== null")
    browser.value(f"localStorage.setItem('prefect-password', {password!r})")
    visit(browser, f"{page}/runs/flow-run/{run}", "Completed", "3 task runs")
    browser.until("document.querySelector('canvas') !== null", seconds=120)
    keep(browser, "prefect-flow-run")


def left(folder: Path) -> list[int]:
    """The processes that know the folder."""
    found = []
    for number in processes():
        try:
            if str(folder) in Path(f"/proc/{number}/cmdline").read_text() or Path(f"/proc/{number}/cwd").resolve().is_relative_to(folder):
                found.append(number)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "infra.stack", "run", "--folder", str(tmp_path / "run")], cwd=ROOT, start_new_session=True
    )
    while not (tmp_path / "run" / "mlflow" / "process").is_file():
        assert run.poll() is None
        time.sleep(0.2)
    run.send_signal(number)
    assert run.wait(120) == 130
    assert left(tmp_path) == []


def test_a_release_is_promoted_and_rolled_back_on_real_servers(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.stack", "run", "--folder", str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    history = done.stdout.partition("== what happened")[2]
    assert [what in history for what in ("the first", "trained longer", "to show it")] == [True] * 3
    assert "production 1" in done.stdout.partition("== back to the first")[2].partition("== what happened")[0]
    assert left(tmp_path) == []
