"""A paid OpenAI-compatible endpoint on loopback, with faults: it bills every reply, once for an Idempotency-Key, as such services do."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMPARISON = {
    "query": "The query shows a part.", "reference": "The reference shows a part without defect.", "difference": "A dark square stands out.",
    "position": "It is near one corner.", "appearance": "It is small and darker than its surroundings.",
}  # fmt: skip
DEFECT = {
    "observation": "A small dark square stands out on the part.", "comparison": "Such a part is even in colour.",
    "identification": "Form and tone point to a {type}.", "evaluation": "It goes beyond normal variation.",
    "decision": "So the part has a defect.", "type": "{type}",
}  # fmt: skip
NORMAL = {
    "observation": "The surface of the part is even and whole.", "comparison": "It looks as such a part should.",
    "identification": "There is no sign of a defect.", "evaluation": "What varies is normal variation.",
    "decision": "So the part is good.", "type": "",
}  # fmt: skip


class PaidEndpoint(ThreadingHTTPServer):
    """Answers from the text of a request alone. `faults` are met in turn by the first tries of every key, those
    with a question mark by an eighth of the keys; with `nonsense`, some replies have none of the form that was asked for."""

    daemon_threads = True

    def __init__(self, *, faults: tuple[str, ...] = (), nonsense: bool = False, latency: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults, self.nonsense, self.latency = faults, nonsense, latency
        self.guard = threading.Lock()
        self.tries: Counter[str] = Counter()
        self.billed: Counter[str] = Counter()  # by key
        self.log: list[str] = []  # keys in the order of their requests
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.under_way = self.most_under_way = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: PaidEndpoint
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body, key = json.loads(self.rfile.read(int(self.headers["Content-Length"]))), self.headers["Idempotency-Key"]
        with self.server.guard:
            fault = (*self.server.faults, "")[min(self.server.tries[key], len(self.server.faults))]
            fault = fault.removesuffix("?") if not fault.endswith("?") or int(key[2:4], 16) < 32 else ""
            self.server.tries[key] += 1
            self.server.log.append(key)
            self.server.bodies.append(body)
            self.server.headers.append(dict(self.headers))
            self.server.under_way += 1
            self.server.most_under_way = max(self.server.most_under_way, self.server.under_way)
        time.sleep(self.server.latency)
        with self.server.guard:
            self.server.under_way -= 1
        self._fail(fault) if fault else self._answer(body, key)

    def _fail(self, fault: str) -> None:
        if fault == "hang":
            time.sleep(1.0)
            self.close_connection = True
        elif fault == "cut":
            self.close_connection = True
        elif fault == "garbage":
            self._send(200, b"<html>busy</html>")
        elif fault == "no choices":
            self._send(200, b'{"choices": []}')
        else:
            self._send(
                int(fault), b'{"error": {"message": "the key sk-secret is not known here"}}', {"Retry-After": "0"} if fault == "429" else {}
            )

    def _answer(self, body: dict[str, Any], key: str) -> None:
        text = reply_to(body, nonsense=self.server.nonsense and int(key[:2], 16) < 40)
        message = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
        with self.server.guard:
            self.server.billed[key] = 1 if "Idempotency-Key" in self.headers else self.server.billed[key] + 1
        self._send(200, json.dumps(message | {"usage": {"prompt_tokens": 1000, "completion_tokens": 100}}).encode())

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


def reply_to(body: dict[str, Any], *, nonsense: bool) -> str:
    """What the model says: the same for the same request."""
    content = body["messages"][0]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    if nonsense and "could not be read" not in text:
        return "I think that I shall never see"
    if not isinstance(content, str):
        return json.dumps(COMPARISON)
    if "The query is normal." in text:
        return json.dumps(NORMAL)
    kind = text.split('"type": "')[1].split('"')[0].split("one of: ")[-1].split(",")[0]
    return json.dumps({name: value.format(type=kind) for name, value in DEFECT.items()})


@contextmanager
def serving(endpoint: PaidEndpoint) -> Iterator[PaidEndpoint]:
    """The endpoint at work in a thread."""
    thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.shutdown()
        endpoint.server_close()
        thread.join()
