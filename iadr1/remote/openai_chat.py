"""OpenAI's chat completions through its SDK: OpenAI itself, Qwen-VL-Max, `vllm serve` and whatever else speaks them. Answers are streamed, so that one
that was cut off is never taken for a whole one, and the time-out is for silence."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from iadr1.engines import Chat
from iadr1.remote.certainty import Token, certainty
from iadr1.remote.faults import excerpt, status_outcome
from iadr1.remote.pace import Pace
from iadr1.remote.pictures import Pictures, data_url
from iadr1.remote.replies import Fault, Finish, Reply

FINISHES: Mapping[str, Finish] = {"length": "length", "content_filter": "refusal"}


@dataclass(slots=True)
class OpenAIChat:
    """A client of one model; `options` go into every request as they are. The key stands in no message and no file."""

    url: str
    model: str
    pictures: Pictures
    pace: Pace
    key: str | None = field(default=None, repr=False)
    timeout: float = 120.0  # seconds of silence
    options: Mapping[str, Any] = field(default_factory=dict)
    _sdk: Any = None

    async def __aenter__(self) -> Self:
        from openai import AsyncOpenAI

        self._sdk = AsyncOpenAI(api_key=self.key or "none", base_url=self.url, timeout=self.timeout, max_retries=0)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._sdk.close()

    async def ask(self, chat: Chat, key: str) -> Reply | Fault:
        """One request."""
        import openai

        messages = await asyncio.to_thread(self._messages, chat)
        try:
            raw = await self._sdk.chat.completions.with_raw_response.create(
                model=self.model, messages=messages, stream=True, stream_options={"include_usage": True},
                extra_headers={"Idempotency-Key": key}, **self.options,
            )  # fmt: skip
            self.pace.heed(raw.headers)
            return await self._read(raw.parse())
        except openai.APIStatusError as error:
            response = error.response
            return status_outcome(response.status_code, response.headers, response.text, who=f"{self.model} at {self.url}", key=self.key)
        except openai.APITimeoutError:
            return Fault(f"{self.timeout:g} seconds of silence")
        except (openai.APIError, ValueError) as error:  # the connection, an error within the stream, a line that is not JSON
            return Fault(f"{type(error).__name__} ({excerpt(str(error), self.key)})")

    async def _read(self, stream: Any) -> Reply | Fault:
        text, refusal, finish, usage = "", "", None, None
        tokens: list[Token] = []
        async for chunk in stream:
            usage = chunk.usage or usage
            for choice in (chunk.choices or [])[:1]:
                text += (choice.delta and choice.delta.content) or ""
                refusal += (choice.delta and choice.delta.refusal) or ""
                finish = choice.finish_reason or finish
                tokens += _tokens(choice)
        if finish is None:
            return Fault("an answer that was cut off")
        told = (usage.prompt_tokens or 0, usage.completion_tokens or 0) if usage else (0, len(tokens))
        return Reply(refusal or text, "refusal" if refusal else FINISHES.get(finish, "stop"), *told, certainty(tokens))

    def _messages(self, chat: Chat) -> list[dict[str, Any]]:
        return [{"role": message["role"], "content": self._content(message["content"])} for message in chat]

    def _content(self, content: Any) -> Any:
        if isinstance(content, str):
            return content
        return [
            {"type": "image_url", "image_url": {"url": data_url(*self.pictures.encoded(part["image"]))}}
            if part["type"] == "image"
            else part
            for part in content
        ]


def _tokens(choice: Any) -> list[Token]:
    told = (choice.logprobs and choice.logprobs.content) or []
    return [(token.token, [(other.token, other.logprob) for other in token.top_logprobs or []]) for token in told]
