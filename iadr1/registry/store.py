"""MLflow's registry behind the few verbs that a registered model needs; the one module of the library that talks to MLflow.

The store is the one of $MLFLOW_REGISTRY_URI or $MLFLOW_TRACKING_URI, else mlflow.db in the working folder. No code that was registered is run.
"""

import os
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from iadr1.errors import ModelError
from iadr1.registry.history import Entry, History
from iadr1.registry.manifest import difference, sha256
from iadr1.registry.states import ALIASES, State
from iadr1.registry.version import ANSWERS, STAGE, Version, fetched, kept, manifest_under

LOCAL = Path("mlflow.db")
WAYS = "Make one with `make run`, set MLFLOW_TRACKING_URI to your server, or name a model: --model FOLDER."


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
            return Version.of(self._create(self.name, about, source, dict(tags), run_id=run_id, model_id=model_id))

    def versions(self) -> list[Version]:
        """All versions, the oldest first."""
        with _told(self.name):
            return sorted((Version.of(one) for one in self._search(self.name)), key=lambda version: version.number)

    def version(self, number: int) -> Version:
        """One version; raises ModelError when there is none of that number."""
        with _told(f"{self.name} version {number}"):
            return Version.of(self.client.get_model_version(self.name, str(number)))

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
        with self._fetched(version) as root:
            wrong = difference(version.manifest, manifest_under(root))
        if wrong:
            raise ModelError(
                f"{version} is not what was registered ({wrong}). It stays out of use: "
                f"`iadr1 registry archive {number}`, find out who wrote to the artifact store, and register the model again."
            )

    def evaluation(self, number: int) -> list[str]:
        """The lines of predictions that a version was registered with; raises ModelError when they are not as registered."""
        version = self.version(number)
        stated = version.manifest.get(ANSWERS)
        if stated is None:
            raise ModelError(f"{version} was registered without its predictions. Register the model again with `make run`.")
        with self._fetched(version, f"/{ANSWERS}") as file:
            if sha256(file) != stated:
                raise ModelError(f"{version}: {ANSWERS} is not what was registered. Register the model again with `make run`.")
            return file.read_text(encoding="utf-8").splitlines()

    def opened(self, number: int) -> tuple[Path, Mapping[str, Any]]:
        """The model folder of a version and its settings; one that lies elsewhere is fetched once and kept. Both are as registered."""
        version = self.version(number)
        with _told(str(version)):
            root = kept(self._uri(version))
        wrong = difference(version.manifest, manifest_under(root))
        if wrong:
            raise ModelError(
                f"{version}: {root} is not what was registered ({wrong}). Look at `iadr1 registry show {number}`; use another version."
            )
        return version.model_in(root)

    @contextmanager
    def _fetched(self, version: Version, part: str = "") -> Iterator[Path]:
        """The files of a version, or a part of them, as the artifact store has them now, never a kept copy."""
        with _told(str(version)), TemporaryDirectory() as beside:
            yield fetched(self._uri(version) + part, Path(beside))

    def _uri(self, version: Version) -> str:
        return str(self.client.get_model_version_download_uri(version.name, str(version.number)))

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
