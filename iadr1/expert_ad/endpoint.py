"""A teacher behind any OpenAI-compatible endpoint (Qwen-VL-Max, a local vLLM, …): the one file of the library that talks to it.

Faults that pass (timeouts, 408, 409, 429, 5xx, replies that are not the protocol) are tried again after the time that the server asks for, or
a growing one. Each request carries the hash of its content as Idempotency-Key: an endpoint that honours it bills a resent request once.
"""

import base64
import random
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from iadr1.errors import TeacherError
from iadr1.expert_ad.highlight import VERSION, highlighted, picture
from iadr1.expert_ad.instructions import instruction
from iadr1.expert_ad.pairs import Pair
from iadr1.expert_ad.teachers import Reply, Request
from iadr1.images import content_hash
from iadr1.remote.pace import LONGEST_WAIT, PASSING, Pace, asked_wait
from iadr1.remote.replies import hashed

if TYPE_CHECKING:
    import httpx

URL, KEY = "IADR1_TEACHER_URL", "IADR1_TEACHER_KEY"
REFUSALS = frozenset({400, 413, 422})  # of this request; others may pass
COMPARISON_TOKENS, REPLY_TOKENS = 250, {"compare": 250, "distil": 180}  # what replies of real models come to, for the estimate
PIXELS_A_TOKEN, LETTERS_A_TOKEN = 28 * 28, 4  # Qwen's; a rough guide for other models


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is served, and how it is asked; times in seconds. The key stands in no message and no file."""

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 120.0
    retries: int = 6
    first_wait: float = 1.0
    per_minute: float = float("inf")
    longest: int = 1024  # pixels of the longer side of an image
    max_tokens: int = 1024


def endpoint_of(environment: Mapping[str, str], model: str) -> tuple[str, str, str | None]:
    """Address, model and key; address and key come from the environment alone. Raises TeacherError without an address."""
    url = environment.get(URL)
    if not url:
        raise TeacherError(f"the teacher {model} needs the address of its endpoint in ${URL}, such as http://localhost:8000/v1.")
    return url, model, environment.get(KEY)


class EndpointTeacher:
    """Asks an endpoint; safe to call from many threads. Raises TeacherError when going on makes no sense."""

    def __init__(self, endpoint: Endpoint) -> None:
        import httpx

        headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
        timeout = httpx.Timeout(endpoint.timeout, connect=min(endpoint.timeout, 15.0))
        limits = httpx.Limits(max_connections=None)
        self.client = httpx.Client(base_url=endpoint.url.rstrip("/") + "/", headers=headers, timeout=timeout, limits=limits)
        self.endpoint = endpoint
        self._pace = Pace(endpoint.per_minute)
        self._stopped: TeacherError | None = None
        self._halt = threading.Event()

    def stop(self, error: TeacherError) -> None:
        """End all waiting, and every call from now on, with `error`; requests under way are still answered."""
        self._stopped = self._stopped or error
        self._halt.set()

    @property
    def needs_reference(self) -> bool:
        """A model compares two images."""
        return True

    def key(self, request: Request) -> str:
        """The hash of the model, its settings, the text and the pixels of a request."""
        pair, settings = request.pair, self.endpoint
        seen = [content_hash(path) for path in (pair.image, pair.reference, pair.query.mask) if path] if request.step == "compare" else []
        return hashed(settings.model, settings.max_tokens, settings.longest, VERSION, request.attempt, instruction(request), seen)

    def expected(self, request: Request) -> tuple[int, int]:
        """The tokens that a request and its reply may take."""
        text = len(instruction(request)) // LETTERS_A_TOKEN + (
            COMPARISON_TOKENS if request.step == "distil" and not request.comparison else 0
        )
        images = sum(self._image_tokens(path) for path in _image_paths(request.pair)) if request.step == "compare" else 0
        return text + images, REPLY_TOKENS[request.step]

    def __call__(self, request: Request) -> Reply:
        """The reply, after as many tries as it takes; a refused request has an empty one."""
        body, key = self._body(request), self.key(request)
        problem = ""
        for attempt in range(self.endpoint.retries + 1):
            self._sleep(self._pace.turn())
            outcome = self._sent(body, key)
            if isinstance(outcome, Reply):
                return outcome
            problem, asked = outcome
            if attempt < self.endpoint.retries:
                self._back_off(attempt, asked)
        self.stop(TeacherError(
            f"{self.endpoint.url}: no reply after {self.endpoint.retries + 1} tries, the last with {problem}. "
            "What was answered is kept: run the same command again when the endpoint is well."
        ))  # fmt: skip
        raise self._error()

    def _sent(self, body: dict[str, Any], key: str) -> Reply | tuple[str, float | None]:
        """The reply, or the passing fault and the seconds that the server asks to wait."""
        import httpx

        if self._halt.is_set():
            raise self._error()
        try:
            response = self.client.post("chat/completions", json=body, headers={"Idempotency-Key": key})
        except (httpx.TransportError, httpx.DecodingError) as error:
            return f"{type(error).__name__}", None
        if response.status_code in PASSING and "insufficient_quota" not in response.text:
            return f"HTTP {response.status_code}", asked_wait(response.headers)
        if response.status_code in REFUSALS:
            return Reply("", refused=True)
        if response.status_code != 200:
            self.stop(TeacherError(
                f"{self.endpoint.url}: HTTP {response.status_code} for model {self.endpoint.model}: {self._excerpt(response)}. "
                "Correct the address, the key or the model."
            ))  # fmt: skip
            raise self._error()
        reply = read_completion(response)
        return reply if reply is not None else ("a reply that is not the OpenAI protocol", None)

    def _back_off(self, attempt: int, asked: float | None) -> None:
        # Full jitter: many threads that failed together do not come back together.
        wait = random.uniform(0, self.endpoint.first_wait * 2**attempt) if asked is None else asked
        if asked is not None:
            self._pace.pause(asked)
        self._sleep(min(wait, LONGEST_WAIT))

    def _sleep(self, seconds: float) -> None:
        if self._halt.wait(seconds):
            raise self._error()

    def _error(self) -> TeacherError:
        return self._stopped or TeacherError("stopped")

    def _body(self, request: Request) -> dict[str, Any]:
        images = [_image(png) for png in self._pictures(request.pair)] if request.step == "compare" else []
        content = [*images, {"type": "text", "text": instruction(request)}]
        return {
            "model": self.endpoint.model,
            "messages": [{"role": "user", "content": content if images else content[0]["text"]}],
            "temperature": 0,
            "max_tokens": self.endpoint.max_tokens,
        }

    def _pictures(self, pair: Pair) -> Iterator[bytes]:
        assert pair.reference is not None
        yield picture(pair.reference, longest=self.endpoint.longest)
        yield picture(pair.image, longest=self.endpoint.longest)
        if pair.query.mask:
            yield highlighted(pair.image, pair.query.mask, longest=self.endpoint.longest)

    def _image_tokens(self, path: str) -> int:
        from PIL import Image

        with Image.open(path) as image:
            scale = min(1.0, self.endpoint.longest / max(image.size))
            return int(image.width * scale * image.height * scale) // PIXELS_A_TOKEN

    def _excerpt(self, response: "httpx.Response") -> str:
        text = " ".join(response.text.split())[:200]
        return text.replace(self.endpoint.key, "…") if self.endpoint.key else text


def read_completion(response: "httpx.Response") -> Reply | None:
    """The reply in a chat completion; None when the body is none."""
    try:
        body = response.json()
        choice = body["choices"][0]
        content = choice["message"]["content"] or ""
        usage = body.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None
    if not isinstance(content, str):
        return None
    return Reply(content, *tokens, refused=choice.get("finish_reason") == "content_filter")


def _image_paths(pair: Pair) -> list[str]:
    highlight = [pair.image] if pair.query.mask else []
    return [path for path in (pair.reference, pair.image, *highlight) if path]


def _image(png: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(png).decode()}"}}
