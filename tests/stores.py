"""Servers on loopback for downloads: a real S3 server (moto's) whose answers a test can spoil, and a small Hugging Face hub."""

import json
import logging
import re
import threading
import urllib.request
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha1
from typing import Any

from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

Spoil = Callable[[Iterable[bytes]], Iterator[bytes]]


def breaks_after(count: int) -> Spoil:
    """The connection is closed after so many bytes of a body."""

    def spoiled(body: Iterable[bytes]) -> Iterator[bytes]:
        yield b"".join(body)[:count]
        raise ConnectionResetError

    return spoiled


def waits_for(event: threading.Event) -> Spoil:
    """The second half of a body comes when the event has happened."""

    def spoiled(body: Iterable[bytes]) -> Iterator[bytes]:
        whole = b"".join(body)
        yield whole[: len(whole) // 2]
        event.wait(60)
        yield whole[len(whole) // 2 :]

    return spoiled


class Spoiled:
    """A web application that notes what is asked for, and spoils the next answers for a path."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.application = application
        self.asked: list[tuple[str, str | None]] = []
        self.spoils: dict[str, deque[Spoil]] = defaultdict(deque)
        self.url = ""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"].encode("latin-1").decode()
        answer = self.application(environ, start_response)
        if environ["REQUEST_METHOD"] != "GET":
            return answer
        self.asked.append((path, environ.get("HTTP_RANGE")))
        return self.spoils[path].popleft()(answer) if self.spoils[path] else answer


@contextmanager
def served(application: Callable[..., Iterable[bytes]]) -> Iterator[Spoiled]:
    """The application at a port of its own, each request in a thread of its own."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    spoiled = Spoiled(application)
    server = make_server("localhost", 0, spoiled, threaded=True)
    spoiled.url = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield spoiled
    server.shutdown()
    thread.join()


@contextmanager
def s3() -> Iterator[Spoiled]:
    """An S3 server without any bucket."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    with served(DomainDispatcherApplication(create_backend_app)) as server:
        urllib.request.urlopen(urllib.request.Request(f"{server.url}/moto-api/reset", method="POST"))
        yield server


def let_in(server: Spoiled, *, only_known_keys: bool) -> None:
    """Have the S3 server ask who is there, or not."""
    count, plain = b"0" if only_known_keys else b"inf", {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/moto-api/reset-auth", data=count, headers=plain, method="POST"))


class Hub:
    """The part of the hub's protocol that a download of one data set needs."""

    def __init__(self, repository: str, revision: str, files: Mapping[str, bytes]) -> None:
        self.repository, self.revision, self.files = repository, revision, files

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return self.answer(Request(environ))(environ, start_response)

    def answer(self, request: Request) -> Response:
        """What the hub says to a request."""
        asked = re.fullmatch(r"/(?:api/)?datasets/([^/]+/[^/]+)/(revision|tree|resolve)/([^/]+)(?:/(.*))?", request.path)
        if asked is None or asked[1] != self.repository:
            return self.refusal("RepoNotFound")
        if asked[3] != self.revision:
            return self.refusal("RevisionNotFound")
        if asked[2] == "resolve":
            return self.file(request, asked[4])
        siblings = [{"rfilename": path} for path in self.files]
        about = {
            "id": self.repository,
            "sha": self.revision,
            "private": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
        }
        tree = [{"type": "file", "path": path, "size": len(body), "oid": self.oid(body)} for path, body in self.files.items()]
        return Response(json.dumps(tree if asked[2] == "tree" else about), content_type="application/json")

    def file(self, request: Request, path: str) -> Response:
        """A file, or the part of it that is asked for."""
        if path not in self.files:
            return self.refusal("EntryNotFound")
        response = Response(self.files[path], content_type="application/octet-stream", headers={"X-Repo-Commit": self.revision})
        response.set_etag(self.oid(self.files[path]))
        return response.make_conditional(request, accept_ranges=True, complete_length=len(self.files[path]))

    @staticmethod
    def oid(body: bytes) -> str:
        """The name that git gives to a file of this content."""
        return sha1(b"blob %d\0" % len(body) + body).hexdigest()

    @staticmethod
    def refusal(code: str) -> Response:
        """A 404 in the hub's words."""
        return Response(code, status=404, headers={"X-Error-Code": code, "X-Error-Message": code})
