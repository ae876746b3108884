"""What the services have recorded, read from their own databases and by no code that is under test."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra.stack.postgres import USER
from infra.stack.services import DATA, RUNS, Stack

HISTORY = ".history"
# Of MLflow: rows that are written once. Of Prefect: which runs there were.
MLFLOW = {
    "runs": "SELECT run_uuid, name, start_time FROM runs",
    "parameters": "SELECT run_uuid, key, value FROM params",
    "metrics": "SELECT run_uuid, key, value, step, timestamp FROM metrics",
    "versions": "SELECT name, version, source, storage_location, run_id, creation_time FROM model_versions",
    "manifests": "SELECT name, version, key, value FROM model_version_tags WHERE key LIKE 'manifest%'",
    "history": f"SELECT name, version, key, value FROM model_version_tags WHERE name LIKE '%{HISTORY}'",
}
PREFECT = {"flow runs": "SELECT id FROM flow_run", "task runs": "SELECT id FROM task_run"}


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a registered model: the SHA-256 of its files as registered and as they lie in the bucket, and what leads to it."""

    name: str
    number: int
    identity: str
    stated: Mapping[str, str]
    stored: Mapping[str, str]
    aliases: frozenset[str]

    def __str__(self) -> str:
        return f"{self.name} version {self.number}"

    @property
    def whole(self) -> bool:
        """Whether every file is as it was registered."""
        return bool(self.stated) and dict(self.stated) == dict(self.stored)


class Records:
    """Reads what a stack has recorded; PostgreSQL has to run."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def all(self) -> dict[str, set[str]]:
        """Every row that nothing may take away, by what it is."""
        found = {kind: {repr(row) for row in self.rows("mlflow", query)} for kind, query in MLFLOW.items()}
        found |= {kind: {repr(row) for row in self.rows("prefect", query)} for kind, query in PREFECT.items()}
        return found | {"objects": {repr(row) for row in self._objects("SELECT bucket, key FROM objects")}}

    def versions(self) -> list[Version]:
        """Every version but the entries of histories."""
        tags: dict[tuple[str, int], dict[str, str]] = {}
        for name, number, key, value in self.rows("mlflow", "SELECT name, version, key, value FROM model_version_tags"):
            tags.setdefault((name, number), {})[key] = value
        aliases: dict[tuple[str, int], set[str]] = {}
        for name, number, alias in self.rows("mlflow", "SELECT name, version, alias FROM registered_model_aliases"):
            aliases.setdefault((name, number), set()).add(alias)
        found = self.rows("mlflow", f"SELECT name, version, storage_location FROM model_versions WHERE name NOT LIKE '%{HISTORY}'")
        return [
            Version(
                name, number, told.get("manifest_sha256", ""), json.loads(told.get("manifest", "{}")), self._files(place),
                frozenset(aliases.get((name, number), ())),
            )
            for name, number, place in sorted(found) for told in [tags.get((name, number), {})]
        ]  # fmt: skip

    def entries(self, name: str) -> int:
        """How many entries the history of a registered model has."""
        return len(self.rows("mlflow", "SELECT version FROM model_versions WHERE name = %s", name + HISTORY))

    def rows(self, database: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        import psycopg

        service = self.stack.services["postgres"]
        where = f"host=127.0.0.1 port={service.port} user={USER} dbname={database}"
        with psycopg.connect(where, password=service.secrets[0]) as connection:
            return connection.execute(query.encode(), values or None).fetchall()

    def _objects(self, query: str, *values: str) -> Iterator[tuple[Any, ...]]:
        rows = sqlite3.connect(f"file:{self.stack.services['s3'].folder / 'objects.db'}?mode=ro", uri=True)
        try:
            yield from rows.execute(query, values).fetchall()
        finally:
            rows.close()

    def key(self, name: str, number: int, ending: str) -> str:
        """The object of a version whose key ends so."""
        ((place,),) = self.rows("mlflow", "SELECT storage_location FROM model_versions WHERE name = %s AND version = %s", name, number)
        ((key,),) = self._objects(
            "SELECT key FROM objects WHERE bucket = ? AND key LIKE ?", RUNS, f"{place.removeprefix('mlflow-artifacts:/')}/%{ending}"
        )
        return str(key)

    def damaged_in_the_remote(self) -> list[str]:
        """The objects of DVC's remote that are not what their name says: the MD5 of their bytes."""
        found = self._objects("SELECT key, body FROM objects WHERE bucket = ? AND key LIKE 'files/md5/%'", DATA)
        named = ((key, key.removeprefix("files/md5/").replace("/", "").removesuffix(".dir"), body) for key, body in found)
        return [key for key, digest, body in named if hashlib.md5(body, usedforsecurity=False).hexdigest() != digest]

    def _files(self, place: str) -> dict[str, str]:
        """The SHA-256 of the files below an artifact location by their path; the file that MLflow adds when it registers is not of the model."""
        start = f"{place.removeprefix('mlflow-artifacts:/')}/"
        found = self._objects("SELECT key, body FROM objects WHERE bucket = ? AND substr(key, 1, ?) = ?", RUNS, str(len(start)), start)
        return {
            key.removeprefix(start): hashlib.sha256(body).hexdigest() for key, body in found if not key.endswith("registered_model_meta")
        }


def lost(before: Mapping[str, set[str]], after: Mapping[str, set[str]]) -> list[str]:
    """What was recorded and is no more, in words."""
    return [f"{len(gone)} {kind}, such as {min(gone)[:200]}" for kind, rows in before.items() if (gone := rows - after[kind])]
