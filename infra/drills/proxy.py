"""A server between a client and another server of this machine, by whose rule a request is passed on, answered otherwise, kept waiting or cut off."""

import http.client
import socket
import struct
import threading
from collections.abc import Callable
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

SECONDS_TO_ANSWER = 600.0
# A header of one connection, not of the message; the length is that of the body as it is sent here.
OF_A_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect", "host"}


class Reply(NamedTuple):
    """What a rule answers in the server's place."""

    status: int
    body: bytes = b""
    kind: str = "application/xml"


class CutOff(Exception):
    """What a rule raises to have the connection reset, at whatever point it is."""


class Request:
    """A request as far as its headers have come; its body is read when somebody wants it."""

    def __init__(self, handler: "_Handler") -> None:
        self.method, self.path, self._handler = handler.command, handler.path, handler

    @cached_property
    def body(self) -> bytes:
        """The whole body; raises CutOff where its sender is gone before the end."""
        headers, file = self._handler.headers, self._handler.rfile
        if "chunked" not in headers.get("Transfer-Encoding", ""):
            return self.read(int(headers.get("Content-Length", 0)))
        parts = []
        while size := int(file.readline().partition(b";")[0] or b"0", 16):
            parts.append(self.read(size))
            file.readline()
        while file.readline().strip():
            pass
        return b"".join(parts)

    def read(self, count: int) -> bytes:
        """So many bytes of the body, for a rule that cuts it off in the middle."""
        found = self._handler.rfile.read(count)
        if len(found) < count:
            raise CutOff
        return found


Rule = Callable[[Request], Reply | None]


class Proxy:
    """Serves on a free port of loopback until it is closed; None as the rule passes everything on."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.rule: Rule = _pass_on
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def mend(self) -> None:
        """Pass everything on from now."""
        self.rule = _pass_on

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _pass_on(_request: Request) -> Reply | None:
    return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    proxy: Proxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed close their connections; that is what drills are for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _handle(self) -> None:
        request = Request(self)
        try:
            reply = self.server.proxy.rule(request)
            if reply is None:
                self._forward(request)
            else:
                request.body  # noqa: B018 - what is sent has to be read before the answer
                self._answer(reply.status, {"Content-Type": reply.kind}, reply.body)
        except (CutOff, OSError, http.client.HTTPException):
            self._reset()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_OPTIONS = _handle

    def _forward(self, request: Request) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.proxy.to, timeout=SECONDS_TO_ANSWER)
        try:
            kept = {name: value for name, value in self.headers.items() if name.lower() not in OF_A_CONNECTION}
            # Without a length, a body of no bytes would be sent in chunks.
            length = {"Content-Length": str(len(request.body))} if request.body or request.method in ("PUT", "POST") else {}
            connection.request(request.method, request.path, request.body or None, {**kept, **length})
            answer = connection.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in OF_A_CONNECTION}
            if request.method == "HEAD" and answer.getheader("Content-Length"):
                headers["Content-Length"] = str(answer.getheader("Content-Length"))
            self._answer(answer.status, headers, answer.read())
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers and status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        """Close the connection as a network does that is gone: with no word of farewell."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
