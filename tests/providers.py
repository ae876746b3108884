"""Servers on loopback that speak the real protocols of OpenAI, Anthropic and Amazon Bedrock, with faults; each bills what it has answered whole."""

import base64
import hashlib
import io
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

TOKENS_IN, TOKENS_OUT = 400, 2
FILTERED = {
    "openai": {"error": {"message": "Your request was rejected by the safety system", "code": "content_policy_violation"}},
    "anthropic": {"type": "error", "error": {"type": "invalid_request_error", "message": "Output blocked: content_filter"}},
    "bedrock": {"message": "content_filter"},
}  # fmt: skip
BEDROCK_ERRORS = {
    "400": "ValidationException", "401": "UnrecognizedClientException", "403": "AccessDeniedException", "404": "ResourceNotFoundException",
    "424": "ModelErrorException", "429": "ThrottlingException", "500": "InternalServerException", "503": "ServiceUnavailableException",
}  # fmt: skip


class Provider(ThreadingHTTPServer):
    """Answers from the pixels of the query alone: the level of red, and yes where it is odd. `faults` are met in turn by the first tries of every
    question; with `some`, only by the questions whose level of red is divisible by it."""

    daemon_threads = True

    def __init__(
        self, protocol: str, *, faults: tuple[str, ...] = (), some: int = 1, latency: float = 0.0, models: tuple[str, ...] = ()
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.protocol, self.faults, self.some, self.latency, self.models = protocol, faults, some, latency, models
        self.guard = threading.Lock()
        self.tries: Counter[str] = Counter()
        self.billed: Counter[str] = Counter()  # whole answers, by question
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.under_way = self.most_under_way = 0

    @property
    def url(self) -> str:
        """Where it is, as the client of its protocol wants it."""
        return f"http://127.0.0.1:{self.server_port}" + ("/v1" if self.protocol == "openai" else "")

    @contextmanager
    def serving(self) -> "Iterator[Provider]":
        """At work in a thread."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Provider
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.server.models]})

    def do_POST(self) -> None:
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        messages = json.dumps(body["messages"], sort_keys=True)
        question, level = hashlib.sha256(messages.encode()).hexdigest(), red(server.protocol, body["messages"])
        with server.guard:
            fault = (*server.faults, "")[min(server.tries[question], len(server.faults))] if level % server.some == 0 else ""
            server.tries[question] += 1
            server.bodies.append(body)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        time.sleep(server.latency)
        with server.guard:
            server.under_way -= 1
        if fault in ("", "refusal", "length"):
            with server.guard:
                server.billed[question] += 1
        self._answer(fault, level)

    def _answer(self, fault: str, level: int) -> None:
        if fault == "hang":
            time.sleep(1.5)
            self.close_connection = True
        elif fault == "close":
            self.close_connection = True
        elif fault == "garbage":
            self._send(200, b"<html>busy</html>")
        elif fault == "other":
            self._send(200, {"hello": "world"})
        elif fault == "filtered":
            self._send(400, FILTERED[self.server.protocol], {"x-amzn-errortype": "ValidationException"})
        elif fault.isdigit():
            self._error(fault)
        else:
            getattr(self, f"_{self.server.protocol}")("Yes" if level % 2 else "No", level, fault)

    def _error(self, status: str) -> None:
        later = (datetime.now(UTC) + timedelta(milliseconds=30)).isoformat()
        waits = {
            "openai": {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"},
            "anthropic": {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": later},
            "bedrock": {"x-amzn-errortype": BEDROCK_ERRORS.get(status, "InternalServerException")},
        }
        message = "the key sk-secret is not known here"
        content = (
            {"message": message}
            if self.server.protocol == "bedrock"
            else {"type": "error", "error": {"type": "api_error", "message": message}}
        )
        limited = status == "429" or self.server.protocol == "bedrock"
        self._send(int(status), content, waits[self.server.protocol] if limited else {})

    def _openai(self, word: str, level: int, fault: str) -> None:
        """Server-sent events; `cut` ends them before the answer's end, `broken` within a line, `error` with an error."""
        finish = {"length": "length", "refusal": "stop", "content_filter": "content_filter"}.get(fault, "stop")
        said = "refusal" if fault == "refusal" else "content"
        sure = {"logprobs": {"content": [{"token": word, "logprob": math.log(0.8), "bytes": None, "top_logprobs": top(word)}]}}
        deltas = [
            {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None},
            {"index": 0, "delta": {said: word}, "finish_reason": None, **(sure if fault != "refusal" else {})},
            {"index": 0, "delta": {said: f", {level}"}, "finish_reason": None},
            {"index": 0, "delta": {}, "finish_reason": finish},
        ]
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        events = [{**head, "choices": [delta]} for delta in deltas]
        usage = {"prompt_tokens": TOKENS_IN, "completion_tokens": TOKENS_OUT, "total_tokens": TOKENS_IN + TOKENS_OUT}
        lines = [f"data: {json.dumps(event)}\n\n" for event in (*events, {**head, "choices": [], "usage": usage})] + ["data: [DONE]\n\n"]
        if fault == "cut":
            lines = lines[:2]
        if fault == "broken":
            lines[2] = lines[2][:40]
            del lines[3:]
        if fault == "error":
            lines[2:] = ['data: {"error": {"message": "overloaded", "type": "server_error"}}\n\n']
        self._send(200, "".join(lines).encode(), {"Content-Type": "text/event-stream"}, whole=fault not in ("cut", "broken"))

    def _anthropic(self, word: str, level: int, fault: str) -> None:
        stopped = {"length": "max_tokens", "refusal": "refusal"}.get(fault, "end_turn")
        content = [{"type": "text", "text": f"{word}, {level}"}]
        usage = {"input_tokens": TOKENS_IN, "output_tokens": TOKENS_OUT}
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
        self._send(200, {**head, "content": content, "stop_reason": stopped, "usage": usage}, whole=fault not in ("cut", "broken"))

    def _bedrock(self, word: str, level: int, fault: str) -> None:
        stopped = {"length": "max_tokens", "refusal": "content_filtered"}.get(fault, "end_turn")
        output = {"message": {"role": "assistant", "content": [{"text": f"{word}, {level}"}]}}
        usage = {"inputTokens": TOKENS_IN, "outputTokens": TOKENS_OUT, "totalTokens": TOKENS_IN + TOKENS_OUT}
        self._send(
            200,
            {"output": output, "stopReason": stopped, "usage": usage, "metrics": {"latencyMs": 1}},
            whole=fault not in ("cut", "broken"),
        )

    def _send(self, status: int, content: bytes | dict[str, Any], headers: dict[str, str] | None = None, *, whole: bool = True) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}.items():
            if name != "Content-Length" or whole:
                self.send_header(name, value)
        if not whole:  # the length that was promised never comes
            self.send_header("Content-Length", str(len(body) + 100))
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body if whole or self.server.protocol == "openai" else body[: len(body) // 2])

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


def top(word: str) -> list[dict[str, Any]]:
    """What might have been said: the word at 0.8, the other at 0.1, nonsense at 0.1."""
    other = "No" if word == "Yes" else "Yes"
    return [{"token": text, "logprob": math.log(p), "bytes": None} for text, p in ((word, 0.8), (other, 0.1), ("Maybe", 0.1))]


def pictures(protocol: str, messages: list[dict[str, Any]]) -> list[bytes]:
    """The images of a request, decoded from its protocol."""
    parts = messages[-1]["content"]
    if protocol == "openai":
        return [base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in parts if part["type"] == "image_url"]
    if protocol == "anthropic":
        return [base64.b64decode(part["source"]["data"]) for part in parts if part["type"] == "image"]
    return [base64.b64decode(part["image"]["source"]["bytes"]) for part in parts if "image" in part]


def red(protocol: str, messages: list[dict[str, Any]]) -> int:
    """The level of red of the last image."""
    with Image.open(io.BytesIO(pictures(protocol, messages)[-1])) as image:
        pixel = image.convert("RGB").getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return int(pixel[0])
