"""A JSON line for each thing that a stage does, says or logs, beside what a person reads: IADR1_LOG_JSON=FILE switches it on.

Every line has the time, the stage, and from when they are known the MLflow run, its release and the lineage. No secret of the environment
comes into a log record, with or without the file.
"""

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from iadr1.credentials import redacted

FILE = "IADR1_LOG_JSON"
STOPPED = 143
_context: dict[str, str] = {}


def bind(names: Mapping[str, str]) -> None:
    """Put these into every further line of this process."""
    _context.update(names)


def event(name: str, **facts: Any) -> None:
    """Append a line; one write, so that several processes may share the file."""
    if file := os.environ.get(FILE):
        told = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": name, **_context, "pid": os.getpid(), **facts}
        with Path(file).open("a", encoding="utf-8") as lines:
            lines.write(safe(json.dumps(told, ensure_ascii=False, default=str)) + "\n")


def safe(text: str) -> str:
    """The text without what must stay secret."""
    return redacted(text, os.environ)


@contextmanager
def logged(stage: str) -> Iterator[None]:
    """Tell when a stage starts and how it ends, and what is said and logged in between."""
    _context.clear()
    bind({"stage": stage, **({"rank": os.environ["RANK"]} if "RANK" in os.environ else {})})
    _redact_records()
    event("started", arguments=sys.argv[1:])
    began, ended = time.monotonic(), {"outcome": "done"}
    try:
        with redirect_stdout(_Told(sys.stdout)) if FILE in os.environ else redirect_stdout(sys.stdout):
            yield
    except SystemExit as error:
        ended = _ending(error.code)
        raise
    except BaseException as error:
        ended = {"outcome": "crashed", "message": "".join(traceback.format_exception_only(error)).strip()}
        raise
    finally:
        event("ended", **ended, seconds=round(time.monotonic() - began, 3))


def _ending(code: object) -> dict[str, str]:
    if isinstance(code, str):
        return {"outcome": "failed", "message": code}
    return {"outcome": {None: "done", 0: "done", STOPPED: "stopped"}.get(code, f"exit {code}")}  # type: ignore[call-overload]


def _redact_records() -> None:
    """Have every record of every logger made without secrets, tell it as a line, and have a crash printed without them."""
    if getattr(logging.getLogRecordFactory(), "redacts", False):
        return
    made_by = logging.getLogRecordFactory()

    def record(*arguments: Any, **named: Any) -> logging.LogRecord:
        made = made_by(*arguments, **named)
        made.msg, made.args = safe(made.getMessage()), ()
        if made.levelno >= logging.WARNING:
            event("logged", level=made.levelname, logger=made.name, message=made.msg)
        return made

    record.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(record)
    sys.excepthook = _print_crash


def _print_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(safe("".join(traceback.format_exception(kind, error, trace))))


class _Told:
    """Standard output, of which each whole line is told as well."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.pending = stream, ""

    def write(self, text: str) -> int:
        """Pass the text on."""
        *lines, self.pending = (self.pending + text).split("\n")
        for line in filter(str.strip, lines):
            event("said", message=line)
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
