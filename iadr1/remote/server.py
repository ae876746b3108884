"""An engine behind a server of one's own: `evaluate.engine: server`, `vllm serve models/sc_grpo --trust-request-mm-kwargs`, its address in the environment.

The option lets a request say to what size its images are brought (pa_sft.max_pixels), without which the model would see other images than in training.

$IADR1_ENGINE_URL holds one address or several with spaces between them, each of a server of one or more models; $IADR1_ENGINE_KEY their key, if any.
A model is found by the name that it is served under: its folder, or the last parts of that.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from iadr1 import backbones
from iadr1.engines import Chat, Generated
from iadr1.errors import EngineError
from iadr1.remote.asking import Asker, Patience, Question
from iadr1.remote.faults import excerpt
from iadr1.remote.openai_chat import OpenAIChat
from iadr1.remote.pace import Pace
from iadr1.remote.pictures import Pictures
from iadr1.remote.replies import Reply

URL, KEY = "IADR1_ENGINE_URL", "IADR1_ENGINE_KEY"
LOGPROBS = 20  # the most that OpenAI's protocol allows
SILENCE = 600.0  # seconds; a server on a CPU is slow to begin


class ServerEngine:
    """Greedy answers from an OpenAI-compatible server, which is handed `batch_size` chats at a time and batches them itself."""

    def __init__(self, model: Path, *, batch_size: int, max_new_tokens: int, max_pixels: int | None = None, images: int = 1) -> None:
        url, name = served(model, os.environ)
        options = _options(model, max_new_tokens=max_new_tokens, max_pixels=max_pixels)
        self.client = OpenAIChat(url, name, Pictures(), Pace(), os.environ.get(KEY), timeout=SILENCE, options=options)
        self.patience = Patience(concurrency=batch_size)

    def __call__(self, chats: Sequence[Chat], done: Callable[[int], object] = lambda count: None) -> list[Generated]:
        """The answers, in the order of the chats."""
        found: dict[int, Generated] = {}
        for some in self.stream(chats):
            found |= some
            done(len(some))
        return [found[at] for at in sorted(found)]

    def stream(
        self, chats: Sequence[Chat], wanted: Callable[[int], bool] = lambda at: True, *, pattern: str | None = None
    ) -> Iterator[dict[int, Generated]]:
        """The answers as they come, by their chat's place."""
        asker = Asker(self._held_to(pattern), f"{self.client.model} at {self.client.url}", self.patience, self.client.pace)
        questions = (Question(chats[at], str(at)) for at in filter(wanted, range(len(chats))))
        for key, reply in asker.stream(questions):
            yield {int(key): generated(reply)}

    def _held_to(self, pattern: str | None) -> OpenAIChat:
        """The client, whose every answer has to match the pattern; vLLM's own key."""
        if pattern is None:
            return self.client
        body = {**self.client.options["extra_body"], "structured_outputs": {"regex": pattern}}
        return replace(self.client, options={**self.client.options, "extra_body": body})


def generated(reply: Reply) -> Generated:
    """A reply as an engine's answer. A refusal answers nothing: words of it that would read as yes or no are left out."""
    from iadr1.verdict import Verdict

    refused = reply.finish == "refusal"
    text = "" if refused and Verdict.read(reply.text).anomalous is not None else reply.text.strip()
    return Generated(text, reply.finish == "length", reply.tokens_out, reply.p_yes, reply.finish, reply.seconds)


def served(model: Path, environment: Mapping[str, str]) -> tuple[str, str]:
    """The address that serves a model folder, and the name that it has there; raises EngineError with what is served instead."""
    urls, start = environment.get(URL, "").split(), f"vllm serve {model} --trust-request-mm-kwargs"
    if not urls:
        raise EngineError(
            f"evaluate.engine is server, but ${URL} is empty. Start `{start}` and set it to such as http://localhost:8000/v1."
        )
    found = {url: list(_names(url, environment.get(KEY))) for url in urls}
    folder = str(model.resolve())
    for url, names in found.items():
        for name in names:
            if f"{folder}/".endswith(f"/{name.strip('/')}/"):
                return url, name
    told = "; ".join(f"{url} serves {', '.join(names) or 'nothing'}" for url, names in found.items())
    raise EngineError(f"{model}: no server has a model of this name. {told}. Start `{start}`.")


def _names(url: str, key: str | None) -> Iterator[str]:
    import httpx

    try:
        response = httpx.get(f"{url.rstrip('/')}/models", headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=30.0)
        response.raise_for_status()
        yield from (str(entry["id"]) for entry in response.json()["data"])
    except httpx.HTTPStatusError as error:
        raise EngineError(
            f"{url}: HTTP {error.response.status_code}: {excerpt(error.response.text, key)}. Correct ${URL} or ${KEY}."
        ) from error
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{url}: no list of models ({type(error).__name__}). Start the server, or correct ${URL}.") from error


def _options(model: Path, *, max_new_tokens: int, max_pixels: int | None) -> dict[str, Any]:
    """Greedy, with images in the size that the model was trained on and no image token in the answer, as the other engines do it."""
    processor = backbones.load_processor(model, max_pixels=max_pixels)
    pixels = {} if max_pixels is None else {"mm_processor_kwargs": {"size": dict(processor.image_processor.size)}}
    banned = {str(processor.tokenizer.convert_tokens_to_ids(processor.image_token)): -100}
    greedy = {"temperature": 0.0, "max_tokens": max_new_tokens, "logit_bias": banned}
    return {**greedy, "logprobs": True, "top_logprobs": LOGPROBS, "extra_body": pixels}
