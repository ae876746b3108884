"""A version of the registered model: packed for MLflow, there with everything that belongs to it or not at all, and found again by its manifest."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import iadr1
from iadr1.errors import ModelError
from iadr1.registry.manifest import fingerprint, manifest_of, sha256, text_of
from iadr1.registry.store import Store
from iadr1.registry.version import ANSWERS, EVALUATION, MANIFEST, MANIFEST_SHA256, MODEL, Version, manifest_under

# A registered version needs these beside the library, which goes with it.
REQUIREMENTS = ("mlflow", "numpy", "pandas", "pillow", "pydantic", "pyyaml", "torch", "torchvision", "transformers")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model folder to register: with the code that MLflow runs it by, its predictions, its settings, and where it comes from."""

    folder: Path
    code: Path
    evaluation: Path
    settings: Mapping[str, Any]
    lineage: Mapping[str, str]

    @property
    def manifest(self) -> dict[str, str]:
        """The SHA-256 of what identifies it: every file of the model, and its predictions."""
        return {**{f"{MODEL}/{path}": digest for path, digest in manifest_of(self.folder).items()}, EVALUATION: sha256(self.evaluation)}


def registered_version(store: Store, candidate: Candidate, *, run_id: str) -> tuple[Version, bool]:
    """The version of this model with these predictions, and whether it was made now.

    Everything is uploaded before the version is made, and the version is made with all its tags in one transaction: a kill leaves files that nobody
    names, or a whole version, which the next run finds by its manifest. One whose files are no longer as registered is not taken; a new one is made.
    """
    identity = fingerprint(candidate.manifest)
    if store.is_there():
        for known in reversed(store.versions()):
            if known.tags.get(MANIFEST_SHA256) == identity and _is_whole(store, known):
                return known, False
    with _sending(store.name):
        logged = _log_inspector(candidate)
        location = store.client.get_logged_model(logged.model_id).artifact_location
        manifest = _whole_manifest(location, candidate)
    tags = {**candidate.lineage, MANIFEST_SHA256: identity, MANIFEST: text_of(manifest)}
    return store.add(logged.model_uri, tags, run_id=run_id, model_id=logged.model_id), True


@contextmanager
def _sending(name: str) -> Iterator[None]:
    """MLflow's own errors as ours, in one line, and without its warnings: they are about input examples and type hints, the signature is stated."""
    from mlflow.exceptions import MlflowException

    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (MlflowException, OSError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{name}: its files could not be sent to MLflow's store ({why}). No version was made. See that the server and its bucket answer, and run again."
        ) from error


def _is_whole(store: Store, known: Version) -> bool:
    try:
        store.verify(known.number)
    except ModelError:
        return False
    return True


def _whole_manifest(location: str, candidate: Candidate) -> dict[str, str]:
    """The SHA-256 of every file of the version: of the model as it is here, of the rest as it was uploaded."""
    from mlflow.artifacts import download_artifacts, list_artifacts

    kept = "artifacts"
    found = {f"{kept}/{candidate.folder.name}/{path}": digest for path, digest in manifest_of(candidate.folder).items()}
    found[ANSWERS] = sha256(candidate.evaluation)
    with TemporaryDirectory() as beside:
        for name in (Path(item.path).name for item in list_artifacts(artifact_uri=location)):
            if name != kept:
                download_artifacts(artifact_uri=f"{location}/{name}", dst_path=beside)
        return found | manifest_under(Path(beside))


def _log_inspector(candidate: Candidate) -> Any:
    import mlflow

    return mlflow.pyfunc.log_model(
        name="inspector",
        python_model=str(candidate.code),
        artifacts={MODEL: str(candidate.folder), EVALUATION: str(candidate.evaluation)},
        model_config=dict(candidate.settings),
        signature=_signature(),
        code_paths=[str(Path(iadr1.__file__).parent)],
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
    )


def _signature() -> Any:
    """Images as base64 in, the objects of iadr1/schemas/inspection.json out."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

    text, number = DataType.string, DataType.double
    given = [ColSpec(text, "image"), ColSpec(text, "reference", required=False)]
    answers: dict[str, Any] = {
        "image": text, "answer": text, "p_yes": number, "location": text, "cells": Array(Array(DataType.long)), "grid": DataType.long,
        "type": text, "reasoning": text, "status": text, "text": text, "seconds": number, "error": text,
    }  # fmt: skip
    told = Schema([ColSpec(kind, name, required=name in ("image", "cells", "grid", "text")) for name, kind in answers.items()])
    return ModelSignature(Schema(given), told, ParamSchema([ParamSpec("grid", DataType.long, 3)]))
