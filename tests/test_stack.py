"""The services as processes: how they are composed, that their data outlives a kill, and that none is left behind."""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from infra.stack import demonstration, postgres
from infra.stack.__main__ import main
from infra.stack.process import Service, StackError, processes
from infra.stack.services import DATABASES, NAMES, NEEDS, Stack, answers, stack

ROOT = Path(__file__).parent.parent
POSTGRES = next(filter(None, (shutil.which("postgres"), *Path("/usr/lib/postgresql").glob("*/bin/postgres"))), None)

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the stack reads /proc")
needs_postgres = pytest.mark.skipif(POSTGRES is None, reason="needs PostgreSQL")

# Answers GET with how often it was started, in a child of its own that outlives its parent's end.
SERVER = """
import http.server, os, subprocess, sys
if "child" not in sys.argv:
    subprocess.Popen([sys.executable, "-c", open("server.py").read(), "child", *sys.argv[1:]]).wait()
else:
    started = open("started", "a+"); started.write("x"); started.flush(); started.seek(0); count = started.read()
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200); self.end_headers(); self.wfile.write(count.encode())
        def log_message(self, *_): pass
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Page).serve_forever()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Service]:
    """A small server of two processes."""
    (tmp_path / "server.py").write_text(SERVER)
    port = free_port()
    made = Service("page", tmp_path, port, (sys.executable, "server.py", str(port)), {}, lambda: answers(f"http://127.0.0.1:{port}/"))
    yield made
    made.kill()


def told(server: Service) -> str:
    import urllib.request

    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(server.address) as page:
        return str(page.read().decode())


@pytest.mark.parametrize("end", [Service.stop, Service.kill])
def test_a_service_that_was_ended_is_gone_with_its_children_and_starts_on_what_it_left(server: Service, end: Callable) -> None:
    server.start()
    server.start()  # does nothing: it is there
    assert told(server) == "x"
    there = server._processes()
    end(server)
    assert len(there) == 2 and not {each.number for each in there} & set(processes()) and not server.running
    server.start()
    assert told(server) == "xx"


def test_a_child_whose_parent_was_killed_is_found_and_ended_by_another_process_too(server: Service) -> None:
    server.start()
    first, child = server._processes()
    os.kill(first.number, 9)
    assert server._child is not None
    server._child.wait()
    other = Service("page", server.folder, server.port, server.command, {}, server.healthy)
    assert [each.number for each in other._processes()] == [child.number] and other.running
    other.stop()
    assert child.number not in processes()


def test_a_process_number_that_went_to_somebody_else_is_left_alone(server: Service) -> None:
    (server.folder / "process").write_text(f"{os.getpid()} 12345")
    assert not server.running
    server.kill()


@pytest.mark.parametrize(
    "command, patience, why",
    [
        ("import os; print('no secret-word here'); raise SystemExit(1)", 30.0, "page: it ended. The end of .*log:\nno \\*\\*\\* here"),
        ("import time; print('waits', flush=True); time.sleep(60)", 1.0, "page: it does not answer within 1 s. The end of .*log:\nwaits"),
    ],
)
def test_a_service_that_does_not_come_says_why_and_leaves_nothing(tmp_path: Path, command: str, patience: float, why: str) -> None:
    service = Service("page", tmp_path, free_port(), (sys.executable, "-c", command), {}, lambda: False, secrets=("secret-word",))
    service.launch()
    with pytest.raises(StackError, match=why):
        service.wait(patience)
    assert not service.running


def test_a_server_does_not_read_the_settings_of_a_persons_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    monkeypatch.setenv("PGHOST", "elsewhere")
    code = "import json, os; json.dump(dict(os.environ), open('environment', 'w'))"
    service = Service("page", tmp_path, 1, (sys.executable, "-c", code), {"PGPORT": "7"}, (tmp_path / "environment").is_file)
    service.start()
    service.kill()
    seen = json.loads((tmp_path / "environment").read_text())
    assert not {"MLFLOW_TRACKING_URI", "PGHOST"} & set(seen) and seen["PGPORT"] == "7" and seen["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.fixture
def composed(tmp_path: Path) -> Stack:
    if any(find_spec(module) is None for module in NEEDS):
        pytest.skip("needs the packages of the extra `stack`")
    return stack(tmp_path / "stack")


def secrets_of(folder: Path) -> list[str]:
    return list(json.loads((folder / "settings.json").read_text())["secrets"].values())


@needs_postgres
def test_no_command_holds_a_secret_and_every_address_is_loopback(composed: Stack, tmp_path: Path) -> None:
    secrets = secrets_of(tmp_path / "stack")
    assert tuple(composed.services) == NAMES and len(set(secrets)) == len(secrets) and all(len(secret) >= 32 for secret in secrets)
    for service in composed.services.values():
        line = " ".join(service.command)
        assert str(service.port) in line and not [secret for secret in secrets if secret in line]
        assert "0.0.0.0" not in line and service.address == f"http://127.0.0.1:{service.port}"
    mlflow = composed.services["mlflow"].environment
    assert mlflow["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")[0] == f"127.0.0.1:{composed.services['mlflow'].port}"
    assert composed.environment["MLFLOW_TRACKING_PASSWORD"] == mlflow["MLFLOW_AUTH_ADMIN_PASSWORD"]
    assert composed.environment["PREFECT_API_AUTH_STRING"] == composed.services["prefect"].environment["PREFECT_SERVER_API_AUTH_STRING"]


@needs_postgres
def test_ports_and_secrets_stay_and_nobody_else_reads_them(composed: Stack, tmp_path: Path) -> None:
    again = stack(tmp_path / "stack", {"mlflow": 5999})
    assert again.services["mlflow"].port == 5999 and again.services["s3"].port == composed.services["s3"].port
    assert again.environment["MLFLOW_TRACKING_PASSWORD"] == composed.environment["MLFLOW_TRACKING_PASSWORD"]
    assert stack(tmp_path / "stack").services["mlflow"].port == 5999
    for name in ("settings.json", "env"):
        assert stat.S_IMODE((tmp_path / "stack" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "stack").stat().st_mode) == 0o700
    assert "MLFLOW_TRACKING_URI=http://127.0.0.1:5999\n" in (tmp_path / "stack" / "env").read_text()


@pytest.mark.parametrize(
    "words, said",
    [
        (["up", "--port", "mlflow"], "--port mlflow: write NAME=NUMBER, such as mlflow=5000."),
        (["up", "--port", "mlflow=0"], "--port mlflow=0: write NAME=NUMBER, such as mlflow=5000."),
        (["up", "--port", "grafana=3000"], "grafana: no such service; there are postgres, s3, mlflow, prefect."),
    ],
)
@needs_postgres
def test_a_wrong_port_is_told(composed: Stack, tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], said: str) -> None:
    assert main([*words, "--folder", str(tmp_path / "stack")]) == 1
    assert capsys.readouterr().err.strip() == said


def test_what_was_never_started_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["down", "--folder", str(tmp_path / "none")]) == 0
    assert "nothing was started there" in capsys.readouterr().out and not (tmp_path / "none").exists()


def test_a_program_that_is_not_there_says_what_to_install() -> None:
    with pytest.raises(
        StackError, match=r"pg_nothing: no such program on PATH or in /usr/lib/postgresql/\*/bin. Install it: apt-get install postgresql"
    ):
        postgres.program("pg_nothing")


def test_the_demonstration_changes_what_its_experiment_has_and_calls_what_there_is() -> None:
    keys = yaml.safe_load((ROOT / "experiments" / "stack.yaml").read_text())
    assert keys["pa_sft"]["num_train_epochs"] >= 1
    modules = {command[2] for _, command in demonstration.steps("stack") if command}
    assert modules == {"flows.release", "dvc", "iadr1"}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A PostgreSQL of its own, as the stack has it."""
    if any(find_spec(module) is None for module in NEEDS):
        pytest.skip("needs the packages of the extra `stack`")
    service = stack(tmp_path_factory.mktemp("database")).services["postgres"]
    service.start()
    yield service
    service.stop()
    assert not service.running


def asked(database: Service, *statements: str) -> object:
    import psycopg

    (password,) = database.secrets
    with psycopg.connect(host="127.0.0.1", port=database.port, user=postgres.USER, password=password, dbname="mlflow") as connection:
        for statement in statements:
            found = connection.execute(statement)
        return found.fetchone() if found.description else None


@needs_postgres
def test_a_killed_database_has_what_was_committed(database: Service) -> None:
    asked(database, "CREATE TABLE killed (word text)", "INSERT INTO killed VALUES ('kept')")
    database.kill()
    assert not database.running and not database.healthy()
    database.start()
    assert asked(database, "SELECT word FROM killed") == ("kept",)


def backup(database: Service, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (password,) = database.secrets
    path = f"{Path(str(POSTGRES)).resolve().parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PGHOST": "127.0.0.1", "PGPORT": str(database.port), "PGUSER": postgres.USER, "PGPASSWORD": password, "BACKUPS": str(folder)}
    script = str(ROOT / "infra" / "config" / "backup.sh")
    return subprocess.run(["bash", script, *words], env={**os.environ, **own, "PATH": path}, capture_output=True, text=True, timeout=120)


@needs_postgres
def test_a_back_up_brings_back_what_was_lost_and_is_missed_when_it_is_old(database: Service, tmp_path: Path) -> None:
    asked(database, "CREATE TABLE backed (word text)", "INSERT INTO backed VALUES ('kept')")
    assert backup(database, tmp_path, "fresh").returncode == 1
    done = backup(database, tmp_path, "once")
    assert done.returncode == 0, done.stderr
    made = Path(done.stdout.strip())
    assert {path.stem for path in made.iterdir()} == set(DATABASES) and backup(database, tmp_path, "fresh").returncode == 0
    asked(database, "DROP TABLE backed")
    restored = backup(database, tmp_path, "restore", str(made))
    assert restored.returncode == 0, restored.stderr
    assert asked(database, "SELECT word FROM backed") == ("kept",)
    yesterday = time.time() - 26 * 3600
    os.utime(made, (yesterday, yesterday))
    assert backup(database, tmp_path, "fresh").returncode == 1


@needs_postgres
def test_a_back_up_that_fails_leaves_nothing_that_looks_like_one(database: Service, tmp_path: Path) -> None:
    own = Service("postgres", database.folder, free_port(), (), {}, lambda: False, secrets=database.secrets)
    done = backup(own, tmp_path, "once")
    assert done.returncode != 0 and [path.suffix for path in tmp_path.iterdir()] == [".part"]
    assert backup(database, tmp_path, "fresh").returncode == 1


def objects(address: str) -> object:
    import boto3

    return boto3.client("s3", endpoint_url=address, aws_access_key_id="x", aws_secret_access_key="y", region_name="us-east-1")


@needs_postgres
@pytest.mark.slow
def test_a_killed_s3_server_has_what_it_answered_for(composed: Stack) -> None:
    s3 = composed.services["s3"]
    s3.start()
    try:
        client, name = objects(s3.address), "a folder/with spaces & an ümlaut+plus.bin"
        client.put_object(Bucket="iadr1-runs", Key=name, Body=b"small", ContentType="text/plain")
        client.put_object(Bucket="iadr1-runs", Key="gone", Body=b"x")
        client.delete_object(Bucket="iadr1-runs", Key="gone")
        for key in ("many/1", "many/2"):
            client.put_object(Bucket="iadr1-runs", Key=key, Body=b"x")
        client.delete_objects(Bucket="iadr1-runs", Delete={"Objects": [{"Key": "many/1"}]})
        parts = _multipart(client, "large", [b"a" * (5 << 20), b"b" * 10])
        s3.kill()
        s3.start()
        found = client.get_object(Bucket="iadr1-runs", Key=name)
        assert (found["Body"].read(), found["ContentType"]) == (b"small", "text/plain")
        assert client.get_object(Bucket="iadr1-runs", Key="large")["Body"].read() == b"".join(parts)
        assert {each["Key"] for each in client.list_objects_v2(Bucket="iadr1-runs")["Contents"]} == {name, "many/2", "large"}
        assert {each["Name"] for each in client.list_buckets()["Buckets"]} == {"iadr1-runs", "iadr1-data"}
    finally:
        s3.stop()


def _multipart(client: object, key: str, parts: Sequence[bytes]) -> Sequence[bytes]:
    upload = client.create_multipart_upload(Bucket="iadr1-runs", Key=key)["UploadId"]
    done = []
    for number, body in enumerate(parts, 1):
        etag = client.upload_part(Bucket="iadr1-runs", Key=key, UploadId=upload, PartNumber=number, Body=body)["ETag"]
        done.append({"PartNumber": number, "ETag": etag})
    client.complete_multipart_upload(Bucket="iadr1-runs", Key=key, UploadId=upload, MultipartUpload={"Parts": done})
    return parts
