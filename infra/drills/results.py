"""The result of a release: what two of them have in common when nothing went wrong, which is everything but names and times."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path


def result(project: Path, name: str) -> dict[str, str]:
    """The SHA-256 of every file of data, models and reports, less what tells which version was registered."""
    folders = (f"data/{name}", f"models/{name}", f"reports/{name}")
    files = (path for folder in folders for path in sorted((project / folder).rglob("*")) if path.is_file())
    told = ((path.relative_to(project).as_posix(), path) for path in files)
    return {key: hashlib.sha256(content(path)).hexdigest() for key, path in told if not is_of_a_version(path)}


def is_of_a_version(path: Path) -> bool:
    """Whether a file tells of a run or a version beside others, not of a result: a decision, a lineage, and pages that hold the time they were made."""
    return path.stem == "decision" or path.suffix == ".html" or bool({"data_docs", "lineage"} & set(path.parts))


def content(path: Path) -> bytes:
    """The bytes of a file, without the version that was registered."""
    if path.name == "summary.json":
        tree = json.loads(path.read_text(encoding="utf-8"))
        return json.dumps({key: value for key, value in tree.items() if key != "registered"}, sort_keys=True).encode()
    if path.suffix == ".md":
        return re.sub(rb"(?m)^Registered: .*$|\S+ version \d+", b"", path.read_bytes())
    return path.read_bytes()


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What is not as expected, in words."""
    return [
        *(f"{name} is missing" for name in sorted(expected.keys() - found.keys())),
        *(f"{name} is new" for name in sorted(found.keys() - expected.keys())),
        *(f"{name} has other bytes" for name in sorted(expected.keys() & found.keys()) if expected[name] != found[name]),
    ]
