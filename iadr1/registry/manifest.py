"""What a model consists of: the SHA-256 of each of its files, and nothing that could run."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from iadr1.errors import ModelError

WEIGHTS = ".safetensors"
# Configurations, tokenizers, templates and texts; a pickle (.bin, .pt, .pkl) or code could run when it is loaded.
ALLOWED = {WEIGHTS, ".json", ".jinja", ".txt", ".model", ".md", ".yaml"}


def manifest_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of a model folder by its path in it; raises ModelError for a file that is none of a model in safetensors."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    wrong = [path for path in files if path.suffix not in ALLOWED and path.name not in ("LICENSE", "NOTICE")]
    if wrong:
        raise ModelError(
            f"{wrong[0]}: a registered model has weights in safetensors and texts, no {wrong[0].suffix or wrong[0].name}. Remove it."
        )
    if not any(path.suffix == WEIGHTS for path in files):
        raise ModelError(f"{folder}: no weights ({WEIGHTS}) in this folder. Save the model in safetensors.")
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def sha256(path: Path) -> str:
    """The SHA-256 of a file, read in parts."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(manifest: Mapping[str, str]) -> str:
    """One SHA-256 for a whole manifest."""
    return hashlib.sha256(text_of(manifest).encode()).hexdigest()


def text_of(manifest: Mapping[str, str]) -> str:
    """A manifest as compact JSON."""
    return json.dumps(dict(manifest), sort_keys=True, separators=(",", ":"))


def difference(stated: Mapping[str, str], found: Mapping[str, str]) -> str:
    """What is not as stated, in words; empty when everything is."""
    changed = sorted(name for name in stated.keys() & found.keys() if stated[name] != found[name])
    kinds = {"changed": changed, "missing": sorted(stated.keys() - found.keys()), "not registered": sorted(found.keys() - stated.keys())}
    return "; ".join(f"{kind}: {_few(names)}" for kind, names in kinds.items() if names)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
