"""The services that the environment names: DVC's remotes, MLflow's tracking and registry, Prefect's server."""

import base64
import configparser
import json
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from importlib.metadata import distributions, version
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from iadr1.credentials import is_secret_name, redacted
from iadr1.doctor.finding import Finding, Place

SECONDS = 5.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")


def answer(url: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """The status and the start of the text that a server answers; raises OSError when nothing answers."""
    direct = [ProxyHandler({})] if urlsplit(url).hostname in LOOPBACK else []
    try:
        with build_opener(*direct).open(Request(url, headers=dict(headers or {})), timeout=SECONDS) as response:
            return response.status, response.read(10_000).decode(errors="replace")
    except HTTPError as error:
        return error.code, error.read(10_000).decode(errors="replace")


def basic(user: str, password: str) -> dict[str, str]:
    """The header of HTTP's basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def remotes(place: Place) -> Iterator[Finding]:
    """DVC's remotes: whether they answer, and whether a secret stands in the file that git keeps."""
    told = _dvc_config(place.folder / ".dvc" / "config")
    known = told | {name: told.get(name, {}) | keys for name, keys in _dvc_config(place.folder / ".dvc" / "config.local").items()}
    for name, keys in told.items():
        for key in filter(is_secret_name, keys):
            fix = f"`dvc remote modify --local {name} {key} VALUE`, remove it from .dvc/config, and revoke it."
            yield Finding("remotes", "fail", f"{name}: .dvc/config, which git keeps, holds {key}", fix)
    if not known:
        yield Finding("remotes", "ok", "no DVC remote: what is made stays on this machine (docs/data.md adds one)")
    for name, keys in known.items():
        yield _remote(place, name, keys)


def _dvc_config(file: Path) -> dict[str, dict[str, str]]:
    """The keys of each remote."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(file, encoding="utf-8")
    except configparser.Error:
        return {}
    names = {section: re.fullmatch(r"'?remote \"(.+)\"'?", section) for section in parser.sections()}
    return {found[1]: dict(parser[section]) for section, found in names.items() if found}


def _remote(place: Place, name: str, keys: Mapping[str, str]) -> Finding:
    url = keys.get("url", "")
    told, scheme = f"{name}: {redacted(url, place.environment)}", urlsplit(url).scheme
    if scheme in ("", "file"):
        folder = place.folder / ".dvc" / url.removeprefix("file://")
        if folder.is_dir() and os.access(folder, os.W_OK):
            return Finding("remotes", "ok", f"{told} can be written")
        return Finding(
            "remotes", "fail", f"{told} is no folder that can be written", f"Mount it, or `dvc remote modify {name} url FOLDER`."
        )
    if scheme not in ("s3", "http", "https"):
        return Finding("remotes", "warn", f"{told} was not asked", f"`dvc status --cloud --remote {name}` asks it.")
    return _bucket(place, told, url, keys) if scheme == "s3" else _http(told, url)


def _bucket(place: Place, told: str, url: str, keys: Mapping[str, str]) -> Finding:
    endpoint = keys.get("endpointurl") or place.environment.get("AWS_ENDPOINT_URL") or "https://s3.amazonaws.com"
    found = _http(told, f"{endpoint.rstrip('/')}/{urlsplit(url).netloc}", missing="no such bucket")
    files = (Path(place.environment.get("AWS_SHARED_CREDENTIALS_FILE", Path.home() / ".aws" / "credentials")),)
    named = [key for key in KEYS if key in place.environment] + [str(file) for file in files if file.is_file()]
    if found.level == "ok" and not named and not {"access_key_id", "profile"} & keys.keys():
        fix = f"Set {KEYS[0]} and AWS_SECRET_ACCESS_KEY, or a profile; on AWS a role of the machine does as well."
        return Finding("remotes", "warn", f"{found.found}, but no credentials are named", fix)
    return found


def _http(told: str, url: str, *, missing: str = "not found") -> Finding:
    try:
        status, _ = answer(url)
    except (OSError, ValueError) as error:
        return Finding("remotes", "fail", f"{told} does not answer ({_why(error)})", "Check the address, the network and the endpointurl.")
    if status == 404 or status >= 500:
        return Finding(
            "remotes", "fail", f"{told} answers {status} ({missing if status == 404 else 'a fault of the server'})", "Check its url."
        )
    return Finding("remotes", "ok", f"{told} answers; `dvc status --cloud` tells whether the keys fit")


def tracking(place: Place) -> Iterator[Finding]:
    """MLflow's stores of runs and of models: whether they answer, let us in, and have the schema of the installed MLflow."""
    tracked = place.environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{place.folder / 'mlflow.db'}"
    registry = place.environment.get("MLFLOW_REGISTRY_URI") or tracked
    for area, uri in {"tracking": tracked, "registry": registry}.items():
        if area == "tracking" or uri != tracked:
            yield from _store(place, area if uri != registry else "tracking", uri)


def _store(place: Place, area: str, uri: str) -> Iterator[Finding]:
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        yield from _server(place, area, uri.rstrip("/"))
    elif scheme == "sqlite":
        yield _sqlite(area, Path(uri.removeprefix("sqlite:///")))
    elif scheme.partition("+")[0] in ("postgresql", "mysql", "mssql"):
        yield _database(place, area, uri)
    else:
        fix = "MLflow refuses folders as stores by default: set MLFLOW_TRACKING_URI to sqlite:////absolute/mlflow.db or to a server."
        yield Finding(area, "fail", f"{redacted(uri, place.environment)} is a folder", fix)


def _server(place: Place, area: str, url: str) -> Iterator[Finding]:
    told, names = redacted(url, place.environment), place.environment
    try:
        status, _ = answer(f"{url}/health")
        user, token = names.get("MLFLOW_TRACKING_USERNAME"), names.get("MLFLOW_TRACKING_TOKEN")
        login = basic(user, names.get("MLFLOW_TRACKING_PASSWORD", "")) if user else {"Authorization": f"Bearer {token}"} if token else {}
        status, said = answer(f"{url}/api/2.0/mlflow/registered-models/search?max_results=1", login)
        _, theirs = answer(f"{url}/version", login)
    except (OSError, ValueError) as error:
        yield Finding(
            area, "fail", f"{told} does not answer ({_why(error)})", "Start the server, or unset MLFLOW_TRACKING_URI for mlflow.db here."
        )
        return
    if status == 200:
        yield Finding(area, "ok", f"{told} answers, and lets us read its models")
        if not login and urlsplit(url).hostname not in LOOPBACK:
            fix = "Start it with `--app-name basic-auth` behind TLS: docs/security.md."
            yield Finding(area, "warn", f"{told} asks nobody who he is: who reaches it can promote a model", fix)
    else:
        yield Finding(area, "fail", f"{told} answers {status} ({_first_line(said)})", _refusal(status, said, url))
    if _is_installed("mlflow") and re.fullmatch(r"\d[\w.]*", theirs.strip()) and theirs.strip() != version("mlflow"):
        yield Finding(
            area, "warn", f"the server has MLflow {theirs.strip()}, this environment {version('mlflow')}", "Take one version for both."
        )


def _refusal(status: int, said: str, url: str) -> str:
    if status == 401:
        return "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment."
    if status == 403 and "host" in said.lower():
        return f"Start the server with MLFLOW_SERVER_ALLOWED_HOSTS={urlsplit(url).netloc},…: its health page answers without, nothing else does."
    return "Look into the server's log."


def _sqlite(area: str, file: Path) -> Finding:
    if not file.is_file():
        return Finding(area, "ok", f"{file} is not there yet; the first run makes it")
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as store:
            whole = store.execute("pragma quick_check(1)").fetchone()[0]
            (found,) = store.execute("select version_num from alembic_version").fetchone()
            (versions,) = store.execute("select count(*) from model_versions").fetchone()
    except (sqlite3.Error, TypeError) as error:
        return Finding(area, "fail", f"{file}: {error}", "It is no store of MLflow, or broken: put back a copy (docs/runbook.md).")
    if whole != "ok":
        return Finding(area, "fail", f"{file}: {whole}", "Put back a copy (docs/runbook.md).")
    return _schema(area, f"{file}, {versions} model versions", found)


def _database(place: Place, area: str, uri: str) -> Finding:
    told = redacted(uri, place.environment)
    try:
        from sqlalchemy import create_engine, text
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        return Finding(area, "fail", f"{told} needs SQLAlchemy", "`pip install mlflow` brings it.")
    try:
        with create_engine(uri).connect() as store:
            found = store.execute(text("select version_num from alembic_version")).scalar_one()
    except (SQLAlchemyError, ImportError) as error:
        return Finding(
            area, "fail", f"{told}: {redacted(_first_line(str(error)), place.environment)}", "Start the database, or mend the URI."
        )
    return _schema(area, told, str(found))


def _schema(area: str, told: str, found: str) -> Finding:
    head = mlflow_schema()
    if head is None or found == head:
        return Finding(area, "ok", f"{told}, schema {found}")
    fix = "Copy the database, then `mlflow db upgrade URI`; a newer schema than MLflow's wants a newer MLflow."
    return Finding(area, "fail", f"{told}, schema {found}; the installed MLflow has {head}", fix)


def mlflow_schema() -> str | None:
    """The last revision of the installed MLflow's database, read from its files: the one that no other one follows."""
    for found in distributions(name="mlflow"):
        folder = Path(str(found.locate_file("mlflow/store/db_migrations/versions")))
        texts = [file.read_text(encoding="utf-8") for file in folder.glob("*.py")]
        names = {name for text in texts for name in re.findall(r"^revision\b.*=\s*[\"'](\w+)", text, re.MULTILINE)}
        return next(
            iter(names - {name for text in texts for name in re.findall(r"^down_revision\b.*=\s*[\"'](\w+)", text, re.MULTILINE)}), None
        )
    return None


def prefect(place: Place) -> Iterator[Finding]:
    """Prefect's server, where the environment names one."""
    url = place.environment.get("PREFECT_API_URL", "").rstrip("/")
    if not url:
        yield Finding("prefect", "ok", "no server is named: each flow starts one of its own on loopback")
        return
    login = place.environment.get("PREFECT_API_AUTH_STRING")
    try:
        status, said = answer(f"{url}/admin/version", basic(*login.split(":", 1)) if login and ":" in login else {})
    except (OSError, ValueError) as error:
        yield Finding("prefect", "fail", f"{url} does not answer ({_why(error)})", "Start the server, or unset PREFECT_API_URL.")
        return
    if status == 200:
        theirs = json.loads(said) if said.startswith('"') else said
        same = not _is_installed("prefect") or theirs == version("prefect")
        fix = None if same else "Take one version for both."
        yield Finding("prefect", "ok" if same else "warn", f"{url} answers, Prefect {theirs}", fix)
    else:
        fix = "Set PREFECT_API_AUTH_STRING=USER:PASSWORD." if status == 401 else "PREFECT_API_URL ends with /api."
        yield Finding("prefect", "fail", f"{url} answers {status}", fix)


def _is_installed(package: str) -> bool:
    return any(True for _ in distributions(name=package))


def _why(error: Exception) -> str:
    return str(error.reason if isinstance(error, URLError) else error)


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:200]
