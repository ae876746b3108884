"""MLflow's registry behind the few verbs that a registered model needs; the one module of the library that talks to MLflow.

The store is the one of $MLFLOW_REGISTRY_URI or $MLFLOW_TRACKING_URI, else mlflow.db in the working folder. No code that was registered is run.
"""

import hashlib
import json
import os
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import yaml

from iadr1.errors import ModelError
from iadr1.registry.history import Entry, History
from iadr1.registry.manifest import difference, sha256
from iadr1.registry.states import ALIASES, State

LOCAL = Path("mlflow.db")
WAYS = "Make one with `make run`, set MLFLOW_TRACKING_URI to your server, or name a model: --model FOLDER."
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

    def __str__(self) -> str:
        return f"{self.name} version {self.number}"


@dataclass(frozen=True)
class Store:
    """One registered model by name, in the registry that a client speaks to."""

    name: str
    client: Any

    @classmethod
    def at(cls, name: str) -> "Store":
        """The model `name` in the registry of the environment; raises ModelError when there is no registry."""
        return cls(name, _client(f"models:/{name}"))

    def is_there(self) -> bool:
        """Whether any version was registered under the name."""
        return bool(self._known())

    def history(self) -> History:
        """Every transition so far."""
        with _told(f"the history of {self.name}"):
            found = self._search(f"{self.name}.history")
            entries = (Entry.of_tags(one.tags, number=int(one.version), when=one.creation_timestamp) for one in found)
            return History.of(self.name, [entry for entry in entries if entry is not None])

    def append(self, entry: Entry) -> None:
        """Write an entry, which counts if no other one came in between; look with `history`."""
        about = f"The history of {self.name}, an entry a version. Written by `iadr1 registry`; never edit."
        said = f"{entry.action} version {entry.version}, by {entry.who}: {entry.why}"[:4000]
        with _told(f"the history of {self.name}"):
            self._create(f"{self.name}.history", about, f"iadr1:/{self.name}/{entry.version}", entry.tags(), description=said)

    def add(self, source: str, tags: Mapping[str, str], *, run_id: str | None = None, model_id: str | None = None) -> Version:
        """A new version, which is there with all its tags or not at all."""
        about = "Industrial inspector that explains itself (iadr1)"
        with _told(self.name):
            return _version(self._create(self.name, about, source, dict(tags), run_id=run_id, model_id=model_id))

    def versions(self) -> list[Version]:
        """All versions, the oldest first."""
        with _told(self.name):
            return sorted((_version(one) for one in self._search(self.name)), key=lambda version: version.number)

    def version(self, number: int) -> Version:
        """One version; raises ModelError when there is none of that number."""
        with _told(f"{self.name} version {number}"):
            return _version(self.client.get_model_version(self.name, str(number)))

    def tag(self, number: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with _told(f"{self.name} version {number}"):
            for key, value in tags.items():
                _settled(self.client.set_model_version_tag, self.name, str(number), key, value)

    def aliases(self) -> dict[str, int]:
        """The aliases as MLflow has them."""
        with _told(self.name):
            known = self._known()
            return {alias: int(number) for alias, number in known[0].aliases.items() if alias in ALIASES} if known else {}

    def shows(self, state: State, *, mirror: bool = False) -> bool:
        """Whether aliases and tags are as the state says."""
        wanted = {alias: number for alias, number in state.aliases.items() if number is not None}
        return self.aliases() == wanted and not list(self._wrong(state, mirror))

    def show(self, state: State, *, mirror: bool) -> None:
        """Make aliases and tags, and the older stage field where that is wanted, a copy of the state."""
        with _told(self.name):
            now = self.aliases()
            for alias, number in state.aliases.items():
                if number is None and alias in now:
                    _settled(self.client.delete_registered_model_alias, self.name, alias)
                elif number is not None and now.get(alias) != number:
                    _settled(self.client.set_registered_model_alias, self.name, alias, str(number))
            for version in self._wrong(state, mirror):
                stage = state.stage(version.number)
                _settled(self.client.set_model_version_tag, self.name, str(version.number), STAGE, stage)
                if mirror and version.stage_field != stage:
                    # Deprecated since MLflow 2.9, and still what older tools read.
                    with warnings.catch_warnings(action="ignore", category=FutureWarning):
                        _settled(self.client.transition_model_version_stage, self.name, str(version.number), stage)

    def verify(self, number: int) -> None:
        """Compare every file of a version with its manifest, as it is stored now; raises ModelError that names what is not as registered."""
        version = self.version(number)
        with self.files(number) as root:
            wrong = difference(_stated(version), _hashes(root))
        if wrong:
            raise ModelError(
                f"{version} is not what was registered ({wrong}). It stays out of use: "
                f"`iadr1 registry archive {number}`, find out who wrote to the artifact store, and register the model again."
            )

    def evaluation(self, number: int) -> list[str]:
        """The lines of predictions that a version was registered with; raises ModelError when they are not as registered."""
        from mlflow.artifacts import download_artifacts

        version = self.version(number)
        stated = _stated(version).get(ANSWERS)
        if stated is None:
            raise ModelError(f"{version} was registered without its predictions. Register the model again with `make run`.")
        with _told(str(version)), TemporaryDirectory() as beside:
            uri = self.client.get_model_version_download_uri(self.name, str(number))
            file = (
                Path(uri_path(uri), ANSWERS)
                if _is_local(uri)
                else Path(download_artifacts(artifact_uri=f"{uri}/{ANSWERS}", dst_path=beside))
            )
            if sha256(file) != stated:
                raise ModelError(f"{version}: {ANSWERS} is not what was registered. Register the model again with `make run`.")
            return file.read_text(encoding="utf-8").splitlines()

    @contextmanager
    def files(self, number: int) -> Iterator[Path]:
        """The folder of a version as the artifact store has it now, never a kept copy."""
        from mlflow.artifacts import download_artifacts

        with _told(f"{self.name} version {number}"), TemporaryDirectory() as beside:
            uri = self.client.get_model_version_download_uri(self.name, str(number))
            yield Path(uri_path(uri)) if _is_local(uri) else Path(download_artifacts(artifact_uri=uri, dst_path=beside))

    def opened(self, number: int) -> tuple[Path, Mapping[str, Any]]:
        """The model folder of a version and its settings; one that lies elsewhere is fetched once and kept. Both are as registered."""
        version = self.version(number)
        with _told(str(version)):
            root = _kept(self.client.get_model_version_download_uri(self.name, str(number)))
        wrong = difference(_stated(version), _hashes(root))
        if wrong:
            raise ModelError(
                f"{version}: {root} is not what was registered ({wrong}). Look at `iadr1 registry show {number}`; use another version."
            )
        return _model(version, root)

    def _create(self, name: str, about: str, source: str, tags: dict[str, str], **more: Any) -> Any:
        """A version of a registered model, which is made for the first one."""
        from mlflow.exceptions import MlflowException

        try:
            return self.client.create_model_version(name, source, tags=tags, await_creation_for=0, **more)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        try:
            self.client.create_registered_model(name, description=about)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return self.client.create_model_version(name, source, tags=tags, await_creation_for=0, **more)

    def _known(self) -> list[Any]:
        return list(self.client.search_registered_models(f"name = '{self.name}'"))

    def _search(self, name: str) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self.client.search_model_versions(f"name = '{name}'", order_by=["version_number ASC"], page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _wrong(self, state: State, mirror: bool) -> Iterator[Version]:
        """The versions whose tag, or stage field, is not that of the state."""
        for version in self.versions():
            stage = state.stage(version.number)
            if version.tags.get(STAGE, "None") != stage or (mirror and version.stage_field != stage):
                yield version


def manifest_under(root: Path) -> dict[str, str]:
    """The SHA-256 of every file of a version, but what is written when it is loaded."""
    return _hashes(root)


def uri_path(uri: str) -> str:
    """A local artifact URI as a path."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    return str(local_file_uri_to_path(uri))


def _client(uri: str) -> Any:
    store = os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI")
    # MLflow would make an empty database where there is none.
    if store is None and not LOCAL.is_file():
        raise ModelError(f"{uri}: no registry: there is no {LOCAL} in {Path.cwd()}, and MLFLOW_TRACKING_URI is not set. {WAYS}")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # where the library is installed without the project's environment
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise ModelError(f"{uri}: the registry is MLflow's, which is not installed. Run `pip install mlflow`, or name a folder.") from error
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for each of a hundred small files
    local = f"sqlite:///{LOCAL.absolute()}"
    return MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or store or local, store or local)


class Unanswered(ModelError):
    """A request whose answer did not come, or was that the registry is busy; whether it was carried out is not known."""


MEETINGS = 10  # of two that write one row, before it is an error
# MLflow's client calls it an internal error when a server cannot be reached; a busy database is unavailable.
_UNKNOWN = ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED")


def _settled(write: Callable[..., Any], *given: str) -> None:
    """A write of a copy, again where it met another one: MLflow looks whether a row is there and then makes it, which two at once cannot both do."""
    from mlflow.exceptions import MlflowException

    for attempt in range(1, MEETINGS + 1):
        try:
            write(*given)
            return
        except MlflowException as error:
            if attempt == MEETINGS or error.error_code not in (*_UNKNOWN, "BAD_REQUEST"):
                raise
            time.sleep(random.uniform(0, 0.1 * attempt))


@contextmanager
def _told(what: str) -> Iterator[None]:
    """MLflow's own errors as ours, in one line."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        kind = Unanswered if getattr(error, "error_code", None) in _UNKNOWN else ModelError
        raise kind(
            f"{what}: the registry does not give it ({(str(error).splitlines() or [''])[0]}). Look with `mlflow ui`. {WAYS}"
        ) from error


def _version(found: Any) -> Version:
    return Version(found.name, int(found.version), dict(found.tags), found.creation_timestamp or 0, found.current_stage or "None")


def _stated(version: Version) -> dict[str, str]:
    if MANIFEST not in version.tags:
        raise ModelError(f"{version} has no manifest of its files, so nobody can tell what it is. Register the model with `make run`.")
    return dict(json.loads(version.tags[MANIFEST]))


def _hashes(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file() and not set(path.relative_to(root).parts) & set(_WRITTEN_LATER))
    return {path.relative_to(root).as_posix(): sha256(path) for path in files}


def _is_local(uri: str) -> bool:
    # mlflow-artifacts:/1/… names a server without a host.
    return urlsplit(uri).scheme in ("", "file")


def _kept(uri: str) -> Path:
    """The folder of a version; one that lies elsewhere is fetched once and kept, because versions do not change."""
    from mlflow.artifacts import download_artifacts

    if _is_local(uri):
        return Path(uri_path(uri))
    kept = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "iadr1", "models", hashlib.sha256(uri.encode()).hexdigest()[:16])
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=kept.parent) as beside:
            Path(download_artifacts(artifact_uri=uri, dst_path=beside)).rename(kept)
    return kept


def _model(version: Version, root: Path) -> tuple[Path, Mapping[str, Any]]:
    told = root / "MLmodel"
    flavor = yaml.safe_load(told.read_text(encoding="utf-8"))["flavors"].get("python_function", {}) if told.is_file() else {}
    model = flavor.get("artifacts", {}).get(MODEL, {}).get("path")
    if model is None:
        raise ModelError(
            f"{version}: {root} holds no inspector of this project (no artifact `model` in MLmodel). Register it with `make run`."
        )
    return root / model, flavor.get("config") or {}
