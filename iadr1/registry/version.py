"""A version of a registered model: what MLflow's registry tells of it, and the files that it consists of."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import yaml

from iadr1.errors import ModelError
from iadr1.registry.manifest import sha256

MODEL, EVALUATION = "model", "evaluation"
ANSWERS = f"artifacts/{EVALUATION}.jsonl"  # in a version
MANIFEST, MANIFEST_SHA256, STAGE = "manifest", "manifest_sha256", "stage"
# Python and MLflow write these beside what was registered when it is loaded.
_WRITTEN_LATER = ("__pycache__", "registered_model_meta")


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a registered model: its number, what its tags tell, and when it was made (milliseconds since 1970)."""

    name: str
    number: int
    tags: Mapping[str, str] = field(default_factory=dict)
    made: int = 0
    stage_field: str = "None"

    @classmethod
    def of(cls, found: Any) -> "Version":
        """The version that MLflow's client has found."""
        return cls(found.name, int(found.version), dict(found.tags), found.creation_timestamp or 0, found.current_stage or "None")

    def __str__(self) -> str:
        return f"{self.name} version {self.number}"

    @property
    def manifest(self) -> dict[str, str]:
        """The SHA-256 of every file that it was registered with; raises ModelError when that was not recorded."""
        if MANIFEST not in self.tags:
            raise ModelError(f"{self} has no manifest of its files, so nobody can tell what it is. Register the model with `make run`.")
        return dict(json.loads(self.tags[MANIFEST]))

    def model_in(self, root: Path) -> tuple[Path, Mapping[str, Any]]:
        """The model folder among the version's files, and the settings that it was registered with; raises ModelError when there is none."""
        told = root / "MLmodel"
        flavor = yaml.safe_load(told.read_text(encoding="utf-8"))["flavors"].get("python_function", {}) if told.is_file() else {}
        model = flavor.get("artifacts", {}).get(MODEL, {}).get("path")
        if model is None:
            raise ModelError(
                f"{self}: {root} holds no inspector of this project (no artifact `model` in MLmodel). Register it with `make run`."
            )
        return root / model, flavor.get("config") or {}


def manifest_under(root: Path) -> dict[str, str]:
    """The SHA-256 of every file of a version, but what is written when it is loaded."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not set(path.relative_to(root).parts) & set(_WRITTEN_LATER))
    return {path.relative_to(root).as_posix(): sha256(path) for path in files}


def fetched(uri: str, folder: Path) -> Path:
    """What lies at an artifact URI: where it is when that is this machine, else fetched into the folder. Raises MLflow's own errors."""
    from mlflow.artifacts import download_artifacts

    return _local(uri) or Path(download_artifacts(artifact_uri=uri, dst_path=str(folder)))


def kept(uri: str) -> Path:
    """The files of a version; what lies elsewhere is fetched once and kept, because versions do not change. Raises MLflow's own errors."""
    if local := _local(uri):
        return local
    folder = Path(
        os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "iadr1", "models", hashlib.sha256(uri.encode()).hexdigest()[:16]
    )
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as beside:
            fetched(uri, Path(beside)).rename(folder)
    return folder


def _local(uri: str) -> Path | None:
    from mlflow.utils.file_utils import local_file_uri_to_path

    # mlflow-artifacts:/1/… names a server without a host.
    return Path(local_file_uri_to_path(uri)) if urlsplit(uri).scheme in ("", "file") else None
