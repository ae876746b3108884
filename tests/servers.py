"""PostgreSQL and an MLflow server on loopback, each a real process of its own that ends with the test."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

SECONDS = 300  # a busy machine


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def mlflow_server(folder: Path, database: str) -> Iterator[str]:
    """The URL of an MLflow server whose artifacts go through it into `folder`."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", database]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--workers", "2"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING") and name != "PYTEST_CURRENT_TEST"}
    log = (folder / "mlflow.log").open("w")
    server = subprocess.Popen(
        command, env={**clean, "PATH": path}, stdout=log, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True
    )
    try:
        _wait(f"{url}/health", server, folder / "mlflow.log")
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
        log.close()


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The URL of an empty database; its server refuses to run as root, so root runs it as nobody."""
    # Its own folder: nobody may not look into one of pytest's.
    data, port = Path(mkdtemp(prefix="iadr1-pg-")), free_port()
    user = "nobody" if os.geteuid() == 0 else None
    if user:
        shutil.chown(data, user)
    password = data / "password"
    password.write_text("a test")
    password.chmod(0o644)
    binaries = Path(str(shutil.which("initdb"))).parent
    _run(
        [binaries / "initdb", "-D", data / "db", "-U", "iadr1", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--locale=C"],
        user,
    )
    log = (folder / "postgres.log").open("w")
    command = [str(binaries / "postgres"), "-D", str(data / "db"), "-p", str(port), "-h", "127.0.0.1", "-k", str(data)]
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, user=user, cwd=data)
    try:
        _wait_for_port(port, server, folder / "postgres.log")
        yield f"postgresql+psycopg://iadr1:a%20test@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
        log.close()
        shutil.rmtree(data)


def _run(command: list[object], user: str | None) -> None:
    done = subprocess.run([str(part) for part in command], user=user, capture_output=True, text=True, cwd="/tmp", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _wait(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(SECONDS):
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            assert server.poll() is None, log.read_text()[-2000:]
            time.sleep(1)
    raise AssertionError(f"{url} does not answer")


def _wait_for_port(port: int, server: subprocess.Popen, log: Path) -> None:
    for _ in range(SECONDS):
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert server.poll() is None, log.read_text()[-2000:]
        time.sleep(0.5)
    raise AssertionError("PostgreSQL does not answer")
