"""moto's S3 server with objects that outlive it: each is also a row of a database, and is put back at the next start.

python infra/stack/s3.py --port 9000 --keep objects.db --bucket dvc --bucket mlflow
"""

import argparse
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

CHANGES = frozenset({"PUT", "POST", "DELETE"})
TABLE = "CREATE TABLE IF NOT EXISTS objects (bucket TEXT, key TEXT, type TEXT, body BLOB, PRIMARY KEY (bucket, key))"

# moto lets anybody who signs read; it does not look at the signature.
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=stack/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=none"}

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Kept:
    """A web application that answers a change only when what it made is in the database."""

    def __init__(self, application: Application, database: Path) -> None:
        from werkzeug.test import Client

        self.application, self.inside, self.lock = application, Client(application), threading.Lock()
        self.rows = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
        self.rows.execute("PRAGMA journal_mode = WAL")
        self.rows.execute(TABLE)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"].encode("latin-1").decode()
        answer = list(self.application(environ, start_response))
        if environ["REQUEST_METHOD"] in CHANGES and not path.startswith("/moto-api"):
            bucket, _, key = path.lstrip("/").partition("/")
            with self.lock:
                self.keep(bucket, [key] if key else self.keys(bucket))
        return answer

    def put_back(self, buckets: Iterable[str]) -> None:
        """Make the buckets, and the objects as they were."""
        rows = self.rows.execute("SELECT bucket, key, type, body FROM objects").fetchall()
        for bucket in {*buckets, *(row[0] for row in rows)}:
            self.inside.put(f"/{bucket}", headers=SIGNED)
        for bucket, key, kind, body in rows:
            self.inside.put(_address(bucket, key), data=body, content_type=kind, headers=SIGNED)

    def keep(self, bucket: str, keys: Iterable[str]) -> None:
        """Have the database say of these objects what the server does."""
        for key in keys:
            found = self.inside.get(_address(bucket, key), headers=SIGNED)
            if found.status_code == 200:
                self.rows.execute("REPLACE INTO objects VALUES (?, ?, ?, ?)", (bucket, key, found.content_type, found.data))
            else:
                self.rows.execute("DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, key))

    def keys(self, bucket: str) -> list[str]:
        """The objects of a bucket that the database has."""
        return [row[0] for row in self.rows.execute("SELECT key FROM objects WHERE bucket = ?", (bucket,))]


def _address(bucket: str, key: str) -> str:
    return f"/{bucket}/{quote(key)}"


def main() -> None:
    """Serve until it is stopped."""
    parser = argparse.ArgumentParser("python infra/stack/s3.py", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--keep", type=Path, required=True, metavar="FILE")
    parser.add_argument("--bucket", action="append", default=[], metavar="NAME")
    given = parser.parse_args()

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    application = Kept(DomainDispatcherApplication(create_backend_app), given.keep)
    application.put_back(given.bucket)
    run_simple("127.0.0.1", given.port, application, threaded=True)


if __name__ == "__main__":
    main()
