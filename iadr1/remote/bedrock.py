"""Amazon Bedrock's converse through boto3, which signs each request with the credentials of the environment."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

from iadr1.engines import Chat
from iadr1.errors import EngineError
from iadr1.remote.faults import excerpt, status_outcome
from iadr1.remote.pace import Pace
from iadr1.remote.pictures import Pictures
from iadr1.remote.replies import Fault, Finish, Reply

FINISHES: Mapping[str, Finish] = {
    "max_tokens": "length", "model_context_window_exceeded": "length",
    "refusal": "refusal", "content_filtered": "refusal", "guardrail_intervened": "refusal",
}  # fmt: skip
# Errors that pass under statuses that else do not: the model is not loaded yet, or failed by itself.
PASSING = frozenset({"ModelErrorException", "ModelNotReadyException", "ModelTimeoutException", "ThrottlingException"})


@dataclass(slots=True)
class Bedrock:
    """A client of one model; `options` go into every call as they are. `url` is None for the region's own address."""

    url: str | None
    model: str
    pictures: Pictures
    pace: Pace
    timeout: float = 120.0
    options: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 8
    _sdk: Any = None
    _threads: Any = None

    async def __aenter__(self) -> Self:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        config = Config(
            retries={"total_max_attempts": 1}, max_pool_connections=self.concurrency, read_timeout=self.timeout,
            connect_timeout=min(self.timeout, 15.0),
        )  # fmt: skip
        try:
            self._sdk = boto3.client("bedrock-runtime", endpoint_url=self.url, config=config)
        except BotoCoreError as error:  # no region, a profile that is not there
            raise EngineError(f"{self.model} at Amazon Bedrock: {error} Set $AWS_REGION and the credentials.") from error
        self._threads = ThreadPoolExecutor(self.concurrency)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._threads.shutdown(wait=False)
        self._sdk.close()

    async def ask(self, chat: Chat, key: str) -> Reply | Fault:
        """One request."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, chat)

    def _ask(self, chat: Chat) -> Reply | Fault:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        messages = [{"role": message["role"], "content": self._content(message["content"])} for message in chat]
        try:
            return _read(self._sdk.converse(modelId=self.model, messages=messages, **self.options))
        except ClientError as error:
            return self._refused(error.response)
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise EngineError(f"{self.model} at Amazon Bedrock: {error} Set $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY.") from error
        except BotoCoreError as error:  # the connection, a time-out, a body that is not JSON
            return Fault(f"{type(error).__name__} ({excerpt(str(error), None)})")

    def _refused(self, response: Mapping[str, Any]) -> Reply | Fault:
        told, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
        code, headers = str(told.get("Code")), meta.get("HTTPHeaders", {})
        status = 503 if code in PASSING else int(meta.get("HTTPStatusCode", 500))
        found = status_outcome(status, headers, f"{code}: {told.get('Message', '')}", who=f"{self.model} at Amazon Bedrock", key=None)
        return Fault(code, found.wait) if isinstance(found, Fault) else found

    def _content(self, content: Any) -> list[dict[str, Any]]:
        if isinstance(content, str):
            return [{"text": content}]
        return [self._image(part["image"]) if part["type"] == "image" else {"text": part["text"]} for part in content]

    def _image(self, path: str) -> dict[str, Any]:
        form, content = self.pictures.encoded(path)
        return {"image": {"format": form, "source": {"bytes": content}}}


def _read(answer: Mapping[str, Any]) -> Reply | Fault:
    try:
        content, stopped = answer["output"]["message"]["content"], answer["stopReason"]
    except KeyError:
        return Fault("an answer that is not the protocol")
    usage = answer.get("usage", {})
    text = "".join(block.get("text", "") for block in content)
    return Reply(text, FINISHES.get(stopped, "stop"), usage.get("inputTokens", 0), usage.get("outputTokens", 0))
