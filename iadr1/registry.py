"""Where a registered model lies: `models:/iad-r1@staging` as a folder. The one file of the library that asks MLflow, and only for such a name.

The store is the one of $MLFLOW_REGISTRY_URI or $MLFLOW_TRACKING_URI, else mlflow.db in the working folder. No code that was registered is run.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from iadr1.errors import ModelError

NAME = "iad-r1"
ALIASES = ("production", "staging")
SCHEME = "models:/"
_FORM = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
_STORE = Path("mlflow.db")


@dataclass(frozen=True, slots=True)
class Found:
    """A registered model: what to call it, its folder, and the settings that it was evaluated with."""

    name: str
    folder: Path
    settings: Mapping[str, Any]


def registered(uri: str) -> Found:
    """The version that `models:/NAME@ALIAS` or `models:/NAME/VERSION` names; raises ModelError when there is none."""
    form = _FORM.fullmatch(uri)
    if form is None:
        raise ModelError(f"{uri}: a registered model is models:/NAME@ALIAS or models:/NAME/VERSION, such as models:/{NAME}@staging.")
    return _opened(uri, **form.groupdict())


def live() -> Found:
    """The version that production points to, else staging; raises ModelError that says what to do when there is neither."""
    client = _client(f"models:/{NAME}@{ALIASES[0]}")
    models = client.search_registered_models(f"name = '{NAME}'")
    alias = next((alias for alias in ALIASES if models and alias in models[0].aliases), None)
    if alias is None:
        raise ModelError(f"the registry has no {' and no '.join(f'{NAME}@{name}' for name in ALIASES)}. {_WAYS}")
    return registered(f"models:/{NAME}@{alias}")


_WAYS = "Make one with `make run`, set MLFLOW_TRACKING_URI to your server, or name a model: --model FOLDER."


def _opened(uri: str, *, name: str, alias: str | None, version: str | None) -> Found:
    from mlflow.exceptions import MlflowException

    client = _client(uri)
    try:
        known = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
        folder = _local(client.get_model_version_download_uri(name, known.version))
    except (MlflowException, OSError) as error:
        raise ModelError(f"{uri}: the registry does not give it ({str(error).splitlines()[0]}). Look with `mlflow ui`. {_WAYS}") from error
    return _found(f"{name} version {known.version}" + (f" ({alias})" if alias else ""), folder)


def _client(uri: str) -> Any:
    store = os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI")
    # MLflow would make an empty database where there is none.
    if store is None and not _STORE.is_file():
        raise ModelError(f"{uri}: no registry: there is no {_STORE} in {Path.cwd()}, and MLFLOW_TRACKING_URI is not set. {_WAYS}")
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise ModelError(f"{uri}: the registry is MLflow's, which is not installed. Run `pip install mlflow`, or name a folder.") from error
    local = f"sqlite:///{_STORE.absolute()}"
    return MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or store or local, store or local)


def _local(uri: str) -> Path:
    """The folder of a version; one that lies elsewhere is fetched once and kept, because versions do not change."""
    from mlflow.artifacts import download_artifacts
    from mlflow.utils.file_utils import local_file_uri_to_path

    if "://" not in uri or uri.startswith("file:"):
        return Path(local_file_uri_to_path(uri))
    kept = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "iadr1", "models", hashlib.sha256(uri.encode()).hexdigest()[:16])
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=kept.parent) as beside:
            Path(download_artifacts(artifact_uri=uri, dst_path=beside)).rename(kept)
    return kept


def _found(name: str, folder: Path) -> Found:
    told = folder / "MLmodel"
    flavor = yaml.safe_load(told.read_text(encoding="utf-8"))["flavors"].get("python_function", {}) if told.is_file() else {}
    model = flavor.get("artifacts", {}).get("model", {}).get("path")
    if model is None:
        raise ModelError(
            f"{name}: {folder} holds no inspector of this project (no artifact `model` in MLmodel). Register it with `make run`."
        )
    return Found(name, folder / model, flavor.get("config") or {})
