"""Fault drills: that the table answers the whole list, that the proxy breaks what it is told to, and that what is compared can differ."""

import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from infra.drills import results
from infra.drills.commands import Command, Ended, Failed, kill, left_behind
from infra.drills.page import page
from infra.drills.proxy import CutOff, Proxy, Reply
from infra.drills.questions import Outcome
from infra.drills.records import Version, lost
from infra.drills.table import DRILLS

ROOT = Path(__file__).parents[1]
# What has to be tried, and the drills that try it.
LIST = {
    "each stage": {f"kill-{stage}" for stage in ("fetch", "prepare", "validate", "pa-sft", "sc-grpo", "evaluate", "register")},
    "the flow": {"kill-flow"},
    "the Prefect server": {"kill-prefect"},
    "the MLflow server": {"kill-mlflow"},
    "PostgreSQL": {"kill-postgres"},
    "S3 that times out": {"s3-times-out"},
    "returns 500": {"s3-500"},
    "loses a multipart upload": {"s3-loses-upload"},
    "refuses": {"s3-refuses"},
    "disk full": {"disk-full"},
    "clock jump": {"clock-jump"},
    "two releases started at once": {"two-releases"},
    "two promotions at once": {"two-promotions"},
    "a corrupted checkpoint": {"corrupted-checkpoint"},
    "a tampered weight file": {"tampered-weights"},
    "network cut while pushing to the remote": {"network-cut"},
    "a power cut between the registration and the alias": {"power-cut-version", "power-cut-alias"},
}


def test_every_fault_of_the_list_has_its_drill_and_there_is_no_other():
    assert sorted(drill.name for drill in DRILLS) == sorted(name for names in LIST.values() for name in names)


def test_every_stage_is_killed_once_and_a_drill_begins_before_a_stage():
    stages = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    assert LIST["each stage"] == {f"kill-{stage.replace('_', '-')}" for stage in stages}
    assert {drill.before for drill in DRILLS} == set(stages)


def test_the_page_has_a_line_for_every_drill_and_each_of_them_held():
    lines = (ROOT / "docs/drills.md").read_text().splitlines()
    told = {cells[1]: cells[4:7] for line in lines if line.startswith("|") and (cells := [cell.strip() for cell in line.split("|")])}
    assert {drill.name: told.get(drill.name) for drill in DRILLS} == {drill.name: ["yes"] * 3 for drill in DRILLS}


def test_a_drill_writes_its_line_and_leaves_the_others_as_they_were():
    first, second = DRILLS[:2]
    before = page([Outcome(first, "so | and so", (), (), (), 1.2), Outcome(second, "", ("an alias leads nowhere",), (), (), 3.0)], "aaa")
    assert "**no**: an alias leads nowhere" in before and f"1 of {len(DRILLS)} held." in before
    after = page([Outcome(second, "", (), (), (), 4.0)], "bbb", before)
    told = {row[1]: row[2:] for line in after.splitlines() if line.startswith("|") and (row := [cell.strip() for cell in line.split("|")])}
    assert told[first.name] == [first.breaks, "so / and so", "yes", "yes", "yes", "1", "aaa", ""]
    assert told[second.name] == [second.breaks, "", "yes", "yes", "yes", "4", "bbb", ""]
    assert f"2 of {len(DRILLS)} held." in after


class Echo(BaseHTTPRequestHandler):
    """Answers with the body that it was sent."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    between = Proxy(server.server_port)
    yield between
    between.close()
    server.shutdown()
    server.server_close()


def put(proxy: Proxy, body: object, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=10)
    try:
        connection.request("PUT", "/bucket/key", body, headers, encode_chunked="Transfer-Encoding" in headers)  # type: ignore[arg-type]
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_without_a_rule_a_body_comes_through_as_it_is_also_in_chunks(proxy):
    assert put(proxy, b"x" * 100_000) == (200, b"x" * 100_000)
    assert put(proxy, iter([b"one, ", b"two"]), **{"Transfer-Encoding": "chunked"}) == (200, b"one, two")


def test_a_rule_answers_in_the_servers_place_until_it_is_mended(proxy):
    proxy.rule = lambda request: Reply(500, b"broken") if request.method == "PUT" else None
    assert put(proxy, b"x") == (500, b"broken")
    proxy.mend()
    assert put(proxy, b"x") == (200, b"x")


def test_a_rule_cuts_a_body_off_in_the_middle(proxy):
    def rule(request):
        assert request.read(1024) == b"x" * 1024
        raise CutOff

    proxy.rule = rule
    with pytest.raises((http.client.HTTPException, OSError)):
        put(proxy, b"x" * 10_000_000)


def test_a_server_that_is_gone_looks_gone_through_the_proxy():
    proxy = Proxy(1)
    try:
        with pytest.raises((http.client.HTTPException, OSError)):
            put(proxy, b"x")
    finally:
        proxy.close()


def test_the_result_of_a_release_is_its_bytes_without_the_version(tmp_path):
    weights, summary = tmp_path / "models/drill/pa_sft/model.safetensors", tmp_path / "reports/drill/summary.json"
    for file in (weights, summary, tmp_path / "reports/drill/decision.json"):
        file.parent.mkdir(parents=True, exist_ok=True)
    weights.write_bytes(b"weights")
    (tmp_path / "reports/drill/decision.json").write_text("version 1")
    summary.write_text(json.dumps({"models": {"base": 50.0}, "registered": {"version": 1}}))
    first = results.result(tmp_path, "drill")
    summary.write_text(json.dumps({"models": {"base": 50.0}, "registered": {"version": 2}}))
    assert results.differences(first, results.result(tmp_path, "drill")) == []
    summary.write_text(json.dumps({"models": {"base": 50.1}, "registered": {"version": 2}}))
    weights.write_bytes(b"weighty")
    assert results.differences(first, results.result(tmp_path, "drill")) == [
        "models/drill/pa_sft/model.safetensors has other bytes",
        "reports/drill/summary.json has other bytes",
    ]
    weights.unlink()
    assert "models/drill/pa_sft/model.safetensors is missing" in results.differences(first, results.result(tmp_path, "drill"))


@pytest.mark.parametrize(
    "stated, stored, whole",
    [
        ({"model": "a"}, {"model": "a"}, True),
        ({"model": "a"}, {"model": "b"}, False),
        ({"model": "a"}, {}, False),
        ({"model": "a"}, {"model": "a", "more": "b"}, False),
        ({}, {}, False),
    ],
)
def test_a_version_is_whole_when_every_file_is_as_registered(stated, stored, whole):
    assert Version("iad-r1", 1, "", stated, stored, frozenset()).whole is whole


def test_a_row_that_is_gone_is_lost_and_a_new_one_is_not():
    assert lost({"runs": {"a", "b"}}, {"runs": {"a", "c"}}) == ["1 runs, such as b"]
    assert lost({"runs": {"a"}}, {"runs": {"a", "b"}}) == []


@pytest.mark.parametrize(
    "text, said",
    [
        ("one\ntwo\n", "two"),
        ("pa_sft ...\nfailed: pa_sft\npa_sft: the disk is full\n", "pa_sft: the disk is full"),
        ("10%\r100%\rdone", "done"),
        ("", "nothing"),
    ],
)
def test_what_a_person_reads_last(text, said):
    assert Ended(1, text).said == said


SLEEPS = "import pathlib, time; pathlib.Path('here').touch(); time.sleep(600)"


def test_a_process_is_killed_by_its_module_and_its_project(tmp_path):
    project, other = tmp_path / "project", tmp_path / "other"
    for folder in (project, other):
        folder.mkdir()
        (folder / "stage.py").write_text(SLEEPS)
    words = (sys.executable, "-m", "stage", "--params", "x")
    one, two = (Command(words, project=folder, environment={}, log=tmp_path / f"{folder.name}.log") for folder in (project, other))
    for command in (one, two):
        command.until(lambda folder=Path(command.log.stem): (tmp_path / folder / "here").is_file(), "it ran")
    kill(project, "stage")
    assert one.ended().code == -9 and two.process.poll() is None
    with pytest.raises(Failed, match="no process of stage is there to be killed"):
        kill(project, "stage")
    assert left_behind(project) == []
    kill(other, "stage")
    assert two.ended().code == -9


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_no_drill_leaves_anything_half_registered_lost_or_different(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "infra.drills", "--folder", str(tmp_path / "drills"), "--only", *(drill.name for drill in DRILLS)], cwd=ROOT
    )
    assert done.returncode == 0
