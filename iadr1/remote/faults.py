"""What an error of a remote model means: wait and try again, a refusal to answer, or an end for all."""

from collections.abc import Mapping

from iadr1.errors import EngineError
from iadr1.remote.pace import PASSING, asked_wait
from iadr1.remote.replies import Fault, Reply

# Codes and words of errors that are a refusal of the content: OpenAI, Azure, DashScope, Amazon.
FILTERED = ("content_policy_violation", "content_filter", "data_inspection_failed", "datainspectionfailed", "responsibleaipolicyviolation")
SPENT = ("insufficient_quota", "credit balance is too low", "arrearage")  # no waiting helps
EXCERPT = 300


def status_outcome(status: int, headers: Mapping[str, str], text: str, *, who: str, key: str | None) -> Reply | Fault:
    """What an HTTP status and the body of its error mean; raises EngineError where no later request can do better."""
    said = text.lower()
    if status in PASSING and not any(word in said for word in SPENT):
        return Fault(f"HTTP {status}", asked_wait(headers))
    if status in (400, 403, 422) and any(word in said for word in FILTERED):
        return Reply(excerpt(text, key), "refusal")
    raise EngineError(f"{who}: HTTP {status}: {excerpt(text, key)}. {_advice(status)} What was answered is kept.")


def _advice(status: int) -> str:
    if status in (401, 403):
        return "Correct the key, or what it may do."
    if status in (402, 429):
        return "The account is spent: add to it."
    return "Correct the address, the model or the parameters."


def excerpt(text: str, key: str | None) -> str:
    """The start of a message on one line, without the key."""
    line = " ".join(text.split())
    return (line.replace(key, "…") if key else line)[:EXCERPT]
