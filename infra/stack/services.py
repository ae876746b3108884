"""The services of the chain on this machine: PostgreSQL, S3 (moto's), MLflow with accounts, Prefect; and what a client needs to find them."""

import base64
import json
import secrets
import shutil
import socket
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from signal import SIGINT
from typing import NamedTuple

from infra.stack import postgres
from infra.stack.process import Service, StackError

# In the order in which they start; they stop in the opposite one.
NAMES = ("postgres", "s3", "mlflow", "prefect")
SECRETS = ("database", "mlflow", "mlflow_sessions", "prefect", "s3_key", "s3_secret")
DATABASES = ("mlflow", "mlflow_accounts", "prefect")
RUNS, DATA = "iadr1-runs", "iadr1-data"  # buckets of MLflow's artifacts and of DVC
ADMIN = "admin"
ACCOUNTS = Path(__file__).parents[1] / "config" / "accounts.ini"
NEEDS = {"psycopg": "psycopg[binary]", "flask_wtf": "Flask-WTF", "moto": "moto[s3]"}
SECONDS_OF_AN_ANSWER = 10.0
# No proxy of the person's environment stands between this machine and itself.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Settings(NamedTuple):
    """What was chosen at the first start and stays: a port for each service, and the secrets."""

    ports: Mapping[str, int]
    secrets: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Stack:
    """The services by name, and the environment in which a command finds them."""

    services: Mapping[str, Service]
    environment: Mapping[str, str]

    def start(self) -> None:
        """Start what does not run; MLflow and Prefect side by side, because each takes half a minute."""
        self.services["postgres"].start()
        self.services["s3"].start()
        for name in ("mlflow", "prefect"):
            self.services[name].launch()
        for name in ("mlflow", "prefect"):
            self.services[name].wait()

    def stop(self) -> None:
        """Stop all: first what uses the others."""
        for name in reversed(NAMES):
            self.services[name].stop()

    @property
    def running(self) -> bool:
        """Whether any of them is there."""
        return any(service.running for service in self.services.values())


def stack(folder: Path, ports: Mapping[str, int] | None = None) -> Stack:
    """The stack whose data, ports and secrets lie in `folder`, made where there is none; `ports` by name instead of free ones."""
    if absent := [package for module, package in NEEDS.items() if find_spec(module) is None]:
        install = f"{sys.executable} -m pip install -c requirements/cpu.txt {' '.join(map(repr, absent))}"
        raise StackError(f"the stack needs {', '.join(absent)}. Install: {install}")
    folder = folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = settings_of(folder / "settings.json", ports or {})
    services = (_postgres(folder, settings), _s3(folder, settings), _mlflow(folder, settings), _prefect(folder, settings))
    environment = client_environment(folder, settings)
    write_private(folder / "env", "".join(f"{name}={value}\n" for name, value in environment.items()))
    _write_dvc_remote(folder / "dvc", settings)
    return Stack({service.name: service for service in services}, environment)


def settings_of(file: Path, ports: Mapping[str, int]) -> Settings:
    """The settings as the file has them, with other ports where they are given; a new one is made for nobody else to read."""
    if unknown := set(ports) - set(NAMES):
        raise StackError(f"{', '.join(sorted(unknown))}: no such service; there are {', '.join(NAMES)}.")
    kept = _read(file) if file.is_file() else Settings(free_ports(), {name: new_secret() for name in SECRETS})
    settings = Settings({**kept.ports, **ports}, kept.secrets)
    write_private(file, json.dumps(settings._asdict()))
    return settings


def _read(file: Path) -> Settings:
    return Settings(**json.loads(file.read_text()))


def client_environment(folder: Path, settings: Settings) -> dict[str, str]:
    """What a command's environment has to say so that MLflow's, Prefect's, DVC's and AWS's clients find the stack."""
    return {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{settings.ports['mlflow']}",
        "MLFLOW_TRACKING_USERNAME": ADMIN,
        "MLFLOW_TRACKING_PASSWORD": settings.secrets["mlflow"],
        "PREFECT_API_URL": f"http://127.0.0.1:{settings.ports['prefect']}/api",
        "PREFECT_API_AUTH_STRING": f"{ADMIN}:{settings.secrets['prefect']}",
        "DVC_GLOBAL_CONFIG_DIR": str(folder / "dvc"),
        **_s3_environment(settings),
    }


def free_ports() -> dict[str, int]:
    """A port for each service that nobody listens on now."""
    with_ports = [socket.create_server(("127.0.0.1", 0)) for _ in NAMES]
    try:
        return {name: held.getsockname()[1] for name, held in zip(NAMES, with_ports, strict=True)}
    finally:
        for held in with_ports:
            held.close()


def new_secret() -> str:
    """A secret that can stand in a URL."""
    return secrets.token_urlsafe(24)


def write_private(file: Path, text: str) -> None:
    """Write a file that nobody else may read, whole or not at all."""
    beside = file.with_name(f"{file.name}.new")
    beside.unlink(missing_ok=True)
    beside.touch(mode=0o600)
    beside.write_text(text)
    beside.rename(file)


def answers(url: str, authorization: str | None = None) -> bool:
    """Whether a GET gives 200; `authorization`: user:password."""
    headers = {"Authorization": f"Basic {base64.b64encode(authorization.encode()).decode()}"} if authorization else {}
    try:
        with _direct.open(urllib.request.Request(url, headers=headers), timeout=SECONDS_OF_AN_ANSWER) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException):
        return False


def _postgres(folder: Path, settings: Settings) -> Service:
    home, port, password = folder / "postgres", settings.ports["postgres"], settings.secrets["database"]

    def healthy() -> bool:
        import psycopg

        try:
            with psycopg.connect(host="127.0.0.1", port=port, user=postgres.USER, password=password, dbname="postgres", connect_timeout=10):
                return True
        except psycopg.OperationalError:
            return False

    return Service(
        "postgres",
        home,
        port,
        postgres.serving(home / "data", port),
        {},
        healthy,
        prepare=lambda: postgres.make_cluster(home / "data", password=password, databases=DATABASES),
        ending=SIGINT,  # "fast": clients are disconnected, what was committed is written
        secrets=(password,),
    )


def _s3(folder: Path, settings: Settings) -> Service:
    home, port = folder / "s3", settings.ports["s3"]
    # -P: beside the file are modules of the same names as others'.
    server = (sys.executable, "-P", str(Path(__file__).with_name("s3.py")))
    command = (*server, "--port", str(port), "--keep", str(home / "objects.db"), "--bucket", RUNS, "--bucket", DATA)
    return Service("s3", home, port, command, {}, lambda: answers(f"http://127.0.0.1:{port}/"))


def _mlflow(folder: Path, settings: Settings) -> Service:
    home, port, password = folder / "mlflow", settings.ports["mlflow"], settings.secrets["mlflow"]
    environment = {
        "MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg:///mlflow",
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{RUNS}",
        "MLFLOW_AUTH_CONFIG_PATH": str(ACCOUNTS),
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": settings.secrets["mlflow_sessions"],
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{port},localhost:{port}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{settings.ports['s3']}",
        **_postgres_environment(settings),
        **_s3_environment(settings),
    }
    return Service(
        "mlflow",
        home,
        port,
        _python(f"mlflow server --host 127.0.0.1 --port {port} --workers 1 --app-name basic-auth"),
        environment,
        lambda: answers(f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=1", f"{ADMIN}:{password}"),
        secrets=tuple(settings.secrets.values()),
    )


def _prefect(folder: Path, settings: Settings) -> Service:
    home, port = folder / "prefect", settings.ports["prefect"]
    account = f"{ADMIN}:{settings.secrets['prefect']}"
    environment = {
        "PREFECT_HOME": str(home),
        "PREFECT_UI_STATIC_DIRECTORY": str(home / "ui"),
        # In memory, a limit that was held when the server was killed would be held for ever.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_API_AUTH_STRING": account,
        "PREFECT_API_AUTH_STRING": account,
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        # Without the driver of PostgreSQL it keeps its runs in a SQLite file below PREFECT_HOME.
        **({"PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg:///prefect"} if on_postgres() else {}),
        **_postgres_environment(settings),
    }
    return Service(
        "prefect",
        home,
        port,
        _python(f"prefect server start --host 127.0.0.1 --port {port}"),
        environment,
        lambda: answers(f"http://127.0.0.1:{port}/api/ready", account),
        secrets=tuple(settings.secrets.values()),
    )


def _python(module: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *module.split())


def on_postgres() -> bool:
    """Whether Prefect can keep its runs in PostgreSQL."""
    return find_spec("asyncpg") is not None


def _postgres_environment(settings: Settings) -> dict[str, str]:
    """Where PostgreSQL is and who asks, as every driver of it reads them; a URL of a database then holds no password."""
    return {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(settings.ports["postgres"]),
        "PGUSER": postgres.USER,
        "PGPASSWORD": settings.secrets["database"],
    }


def _s3_environment(settings: Settings) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": settings.secrets["s3_key"],
        "AWS_SECRET_ACCESS_KEY": settings.secrets["s3_secret"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{settings.ports['s3']}",
    }


def _write_dvc_remote(folder: Path, settings: Settings) -> None:
    """A configuration of DVC that names the stack's bucket; the keys stay in the environment, and the person's own configuration as it is."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    endpoint = f"http://127.0.0.1:{settings.ports['s3']}"
    (folder / "config").write_text(
        f"[core]\n    remote = stack\n['remote \"stack\"']\n    url = s3://{DATA}\n    endpointurl = {endpoint}\n"
    )
