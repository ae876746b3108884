"""What a check says, and where it looks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `fix` is what to do where it is not ok."""

    area: str
    level: Level
    found: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The project's folder and the environment of its processes."""

    folder: Path
    environment: Mapping[str, str]
