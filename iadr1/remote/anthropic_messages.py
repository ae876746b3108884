"""Anthropic's messages through its SDK."""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from iadr1.engines import Chat
from iadr1.remote.faults import excerpt, status_outcome
from iadr1.remote.pace import Pace
from iadr1.remote.pictures import Pictures
from iadr1.remote.replies import Fault, Finish, Reply

FINISHES: Mapping[str, Finish] = {"max_tokens": "length", "model_context_window_exceeded": "length", "refusal": "refusal"}


@dataclass(slots=True)
class AnthropicMessages:
    """A client of one model; `options` go into every request as they are. The key stands in no message and no file."""

    url: str
    model: str
    pictures: Pictures
    pace: Pace
    key: str | None = field(default=None, repr=False)
    timeout: float = 120.0
    options: Mapping[str, Any] = field(default_factory=dict)
    _sdk: Any = None

    async def __aenter__(self) -> Self:
        from anthropic import AsyncAnthropic

        self._sdk = AsyncAnthropic(api_key=self.key or "none", base_url=self.url, timeout=self.timeout, max_retries=0)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._sdk.close()

    async def ask(self, chat: Chat, key: str) -> Reply | Fault:
        """One request."""
        import anthropic

        messages = await asyncio.to_thread(self._messages, chat)
        try:
            raw = await self._sdk.messages.with_raw_response.create(
                model=self.model, messages=messages, extra_headers={"Idempotency-Key": key}, **self.options
            )
            self.pace.heed(raw.headers)
            return _read(await raw.parse())
        except anthropic.APIStatusError as error:
            response = error.response
            return status_outcome(response.status_code, response.headers, response.text, who=f"{self.model} at {self.url}", key=self.key)
        except anthropic.APITimeoutError:
            return Fault(f"no answer within {self.timeout:g} seconds")
        except (anthropic.APIError, ValueError) as error:  # the connection, or a body that is not JSON
            return Fault(f"{type(error).__name__} ({excerpt(str(error), self.key)})")

    def _messages(self, chat: Chat) -> list[dict[str, Any]]:
        return [{"role": message["role"], "content": self._content(message["content"])} for message in chat]

    def _content(self, content: Any) -> Any:
        return (
            content if isinstance(content, str) else [self._image(part["image"]) if part["type"] == "image" else part for part in content]
        )

    def _image(self, path: str) -> dict[str, Any]:
        form, content = self.pictures.encoded(path)
        source = {"type": "base64", "media_type": f"image/{form}", "data": base64.b64encode(content).decode()}
        return {"type": "image", "source": source}


def _read(message: Any) -> Reply | Fault:
    stopped, content = getattr(message, "stop_reason", None), getattr(message, "content", None)
    if not stopped or not isinstance(content, list):
        return Fault("an answer that is not the protocol")
    text = "".join(block.text for block in content if block.type == "text")
    usage = message.usage
    return Reply(text, FINISHES.get(stopped, "stop"), *((usage.input_tokens or 0, usage.output_tokens or 0) if usage else (0, 0)))
