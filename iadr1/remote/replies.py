"""What a remote model said, and the folder that keeps it: what was answered once is never asked, or paid, again."""

import hashlib
import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Finish = Literal["stop", "length", "refusal"]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came: why it ended, the tokens that it took, P(yes) where the protocol tells, and seconds until it was there."""

    text: str
    finish: Finish = "stop"
    tokens_in: int = 0
    tokens_out: int = 0
    p_yes: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that passes, and the seconds that the server asks to wait, if it does."""

    problem: str
    wait: float | None = None


class Replies:
    """Replies in a folder, one file each under the hash of its question, written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def kept(self, key: str) -> Reply | None:
        """The reply to a question that was answered before; None for a new one."""
        try:
            return Reply(**json.loads(self._file(key).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):  # a damaged file is no reply
            return None

    def keep(self, key: str, reply: Reply) -> None:
        """Write a reply so that it survives a kill and, since it was paid for, a power cut."""
        write_whole(self._file(key), json.dumps(asdict(reply), ensure_ascii=False), durable=True)

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def hashed(*parts: object) -> str:
    """The SHA-256 of plain values in hexadecimal."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def write_whole(path: Path, content: str, *, durable: bool) -> None:
    """Write a file that survives a kill whole, or is not there; a `durable` one survives a power cut, too, which takes time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    beside.replace(path)
