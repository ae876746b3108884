"""When the next request may be sent: evenly spread, and never while the server asks to wait. Shared by teachers and remote engines."""

import email.utils
import re
import threading
import time
from collections.abc import Mapping
from datetime import datetime

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
LONGEST_WAIT = 300.0  # seconds, whatever the server asks for

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
# What is left of a limit, and when it is whole again: OpenAI's names (Qwen and vLLM gateways use them as well), then Anthropic's.
_LIMITS = tuple((f"x-ratelimit-remaining-{kind}", f"x-ratelimit-reset-{kind}") for kind in ("requests", "tokens")) + tuple(
    (f"anthropic-ratelimit-{kind}-remaining", f"anthropic-ratelimit-{kind}-reset")
    for kind in ("requests", "tokens", "input-tokens", "output-tokens")
)


class Pace:
    """Spreads the requests of all threads and tasks evenly: at most so many a minute, and none while the server asks for a pause."""

    def __init__(self, per_minute: float = float("inf")) -> None:
        self._between = 60.0 / per_minute
        self._next = 0.0
        self._guard = threading.Lock()

    def turn(self) -> float:
        """The seconds until it is this caller's turn, which is taken."""
        with self._guard:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._between
        return turn - now

    def pause(self, seconds: float) -> None:
        """Nobody's turn for so long."""
        with self._guard:
            self._next = max(self._next, time.monotonic() + min(seconds, LONGEST_WAIT))

    def heed(self, headers: Mapping[str, str]) -> None:
        """Pause where the headers of an answer say that a limit is used up."""
        seconds = until_whole(headers)
        if seconds is not None:
            self.pause(seconds)


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """The seconds that the headers of a refused request ask to wait; None where they ask for nothing."""
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None and re.fullmatch(r"\d+(\.\d+)?", milliseconds):
        return float(milliseconds) / 1000
    told = retry_after(headers.get("retry-after"))
    return until_whole(headers) if told is None else told


def retry_after(header: str | None) -> float | None:
    """The seconds of a Retry-After header, which holds seconds or a date; None for neither."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def until_whole(headers: Mapping[str, str]) -> float | None:
    """The seconds until every limit that is used up is whole again; None when none is."""
    waits = [_seconds(headers.get(reset, "")) for remaining, reset in _LIMITS if headers.get(remaining, "").strip() == "0"]
    return max((wait for wait in waits if wait is not None), default=None)


def _seconds(reset: str) -> float | None:
    """The seconds of a reset: a duration such as 6m0s or 20ms, or the time of day in RFC 3339."""
    found = _DURATION.fullmatch(reset.strip())
    if found and any(found.groups()):
        hours, minutes, seconds, milliseconds = (float(part or 0) for part in found.groups())
        return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    try:
        return max(0.0, datetime.fromisoformat(reset).timestamp() - time.time())
    except ValueError:
        return None
