"""Registered versions without any training: a few bytes of weights, predictions of a chosen skill, and what a version has to tell of its origin."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from iadr1.gates import LINEAGE
from iadr1.registry.manifest import text_of
from iadr1.registry.store import Store
from iadr1.registry.version import ANSWERS, MANIFEST, Version, manifest_under
from iadr1.report import Prediction, write_predictions

ORIGIN = {**dict.fromkeys(LINEAGE, "abc"), "validation": "passed, 0 errors, 0 warnings"}
MLMODEL = "flavors: {python_function: {artifacts: {model: {path: artifacts/sc_grpo}}, config: {batch_size: 1}}}\n"


def packed(folder: Path, answers: Iterable[Prediction], weights: bytes = b"weights") -> Path:
    """A folder like that of a version."""
    model = folder / "artifacts" / "sc_grpo"
    model.mkdir(parents=True)
    (folder / "MLmodel").write_text(MLMODEL)
    (model / "model.safetensors").write_bytes(weights)
    (model / "config.json").write_text("{}")
    write_predictions(folder / ANSWERS, answers)
    return folder


def added(store: Store, folder: Path, answers: Iterable[Prediction], origin: Mapping[str, str] = ORIGIN) -> Version:
    """A version of such a folder, in a registry of this machine."""
    packed(folder, answers)
    return store.add(str(folder), {**origin, MANIFEST: text_of(manifest_under(folder))})


def uploaded(store: Store, folder: Path, answers: Iterable[Prediction]) -> Version:
    """A version of such a folder, uploaded to the artifacts of a server."""
    import mlflow

    mlflow.set_experiment("registries")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(packed(folder, answers)), "version")
        source = f"{run.info.artifact_uri}/version"
    return store.add(source, {**ORIGIN, MANIFEST: text_of(manifest_under(folder))}, run_id=run.info.run_id)
