"""The JSONL that external systems speak: request lines in, answer lines out (iadr1/schemas/request.json and answer.json, docs/systems.md)."""

import json
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from iadr1.engines import Chat, images_of
from iadr1.errors import EngineError, ReportError
from iadr1.remote.replies import Finish, Reply

_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "id": ((str,), "a text"),
    "text": ((str,), "a text"),
    "truncated": ((bool,), "true or false"),
    "tokens": ((int,), "a whole number, 0 or more"),
    "p_yes": ((int, float, type(None)), "a probability, 0 to 1, or null"),
}
SHOWN = 5


def request_line(name: str, chat: Chat) -> str:
    """The line that asks about a chat."""
    return json.dumps({"id": name, "images": images_of(chat), "prompt": prompt_text(chat)}, ensure_ascii=False)


def prompt_text(chat: Chat) -> str:
    """A chat as one text, with <image> where each image stands."""
    parts = [part for message in chat for part in message["content"]]
    return " ".join("<image>" if part["type"] == "image" else str(part["text"]).strip() for part in parts)


def read_answer(line: str, *, source: str) -> tuple[str, Reply]:
    """The id and the reply of an answer line; raises ReportError that names source and field."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ReportError(f"{source}: not JSON ({error}).") from error
    if not isinstance(row, dict):
        raise ReportError(f"{source}: an answer is an object with id and text; found {type(row).__name__}.")
    for name in ("id", "text"):
        if name not in row:
            raise ReportError(f"{source}: {name} is missing; an answer has id and text. Found {sorted(row)}.")
    for name, value in row.items():
        if name not in _KINDS:
            raise ReportError(f"{source}: {name} is no field of an answer; known are {', '.join(_KINDS)}.")
        if not _fits(name, value):
            raise ReportError(f"{source}: {name} is {_KINDS[name][1]}; found {str(value)[:40]!r}.")
    finish: Finish = "length" if row.get("truncated") else "stop"
    p_yes = row.get("p_yes")
    return row["id"], Reply(row["text"], finish, 0, row.get("tokens", 0), None if p_yes is None else float(p_yes))


def _fits(name: str, value: Any) -> bool:
    if type(value) not in _KINDS[name][0]:
        return False
    return {"id": lambda: value != "", "tokens": lambda: value >= 0, "p_yes": lambda: value is None or 0 <= value <= 1}.get(
        name, lambda: True
    )()


def read_answers(path: Path, wanted: Iterable[str]) -> dict[str, Reply]:
    """The answers of a file to all of `wanted`; raises ReportError for one that is missing, there twice or about something else."""
    if not path.is_file():
        raise ReportError(f"{path}: no such file. Write the requests with --requests and let the system answer them.")
    known, found = set(wanted), dict[str, Reply]()
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            name, reply = read_answer(line, source=f"{path}:{number}")
            _accept(name, known, found, source=f"{path}:{number}")
            found[name] = reply
    _whole(known, found, source=str(path))
    return found


def _accept(name: str, known: Iterable[str], found: Mapping[str, Reply], *, source: str) -> None:
    if name not in known:
        raise ReportError(f"{source}: id {name[:80]!r} is that of no request.")
    if name in found:
        raise ReportError(f"{source}: id {name[:80]!r} is answered a second time.")


def _whole(known: set[str], found: Mapping[str, Reply], *, source: str) -> None:
    lacking = sorted(known - found.keys())
    if lacking:
        shown = ", ".join(lacking[:SHOWN]) + (f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else "")
        raise ReportError(f"{source}: {len(lacking)} of {len(known)} requests have no answer: {shown}.")


def answers_of(command: str, requests: Sequence[tuple[str, Chat]], keep: Callable[[str, Reply], object]) -> None:
    """Run a command, hand it the requests on its standard input, and `keep` each answer of its standard output as it comes.

    Raises EngineError when the command fails, ReportError for an answer that is none; what was kept before stays kept.
    """
    source, known = f"the output of `{command}`", {name for name, _ in requests}
    found: dict[str, Reply] = {}
    try:
        process = subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    except OSError as error:
        raise EngineError(f"`{command}` cannot be run: {error.strerror}.") from error
    writing = threading.Thread(target=_write, args=(process, requests), daemon=True)
    with process, ExitStack() as ending, ExitStack() as stack:
        # Two threads must not close its input at once.
        ending.callback(writing.join)
        stack.callback(process.kill)  # of one that breaks the contract
        writing.start()
        for number, line in _lines(process):
            name, reply = read_answer(line, source=f"{source}, line {number}")
            _accept(name, known, found, source=f"{source}, line {number}")
            found[name] = reply
            keep(name, reply)
        stack.pop_all()
    if process.returncode:
        raise EngineError(
            f"`{command}` ended with exit code {process.returncode} after {len(found)} of {len(known)} answers, which are kept."
        )
    _whole(known, found, source=source)


def _lines(process: "subprocess.Popen[str]") -> Iterator[tuple[int, str]]:
    assert process.stdout
    yield from enumerate(process.stdout, 1)


def _write(process: "subprocess.Popen[str]", requests: Sequence[tuple[str, Chat]]) -> None:
    """From a thread of its own: a system that answers before it has read all must not wait for us, nor we for it."""
    assert process.stdin
    try:
        for name, chat in requests:
            process.stdin.write(request_line(name, chat) + "\n")
        process.stdin.close()
    except BrokenPipeError:  # it has ended; its exit code tells more
        return
