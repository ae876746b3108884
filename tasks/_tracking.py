"""MLflow behind the few verbs that stages use: a parent run for a release, a child run for a stage."""

import hashlib
import json
import logging
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from iadr1.params import Params
from tasks import _costs, _logs
from tasks._run import Workspace, fresh_file

PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
VIEW = "mlflow.sharedViewState."
RELEASES = "releases"
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class StageRun:
    """The MLflow run of one execution of a stage; Hugging Face trainers with report_to="mlflow" write into it too."""

    run_id: str
    release_id: str

    def log_metrics(self, metrics: Mapping[str, float | None], step: int | None = None) -> None:
        """Log numbers, leaving out what is None (not applicable)."""
        _mlflow().log_metrics({name: float(value) for name, value in metrics.items() if value is not None}, step=step)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log what the stage was told."""
        _mlflow().log_params(dict(params))

    def log_table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Log a table; a column called `image` holds paths or PIL images and is shown as pictures."""
        pictures = {"image": [_picture(item) for item in columns["image"]]} if "image" in columns else {}
        _mlflow().log_table({**columns, **pictures}, artifact_file=f"{name}.json")

    def log_image(self, image: Any, name: str) -> None:
        """Log one picture, given as a path or a PIL image."""
        _mlflow().log_image(_opened(image), artifact_file=f"{name}.png")

    def log_file(self, path: Path) -> None:
        """Log a file, or a folder with all that is in it."""
        log = _mlflow().log_artifacts if path.is_dir() else _mlflow().log_artifact
        log(str(path), *((path.name,) if path.is_dir() else ()))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Tag the run."""
        _mlflow().set_tags(dict(tags))


@contextmanager
def stage_run(work: Workspace, stage: str, params: Params, *, watched: bool = False) -> Iterator[StageRun]:
    """A child run for this stage below the run of its release; an error inside marks it as failed.

    A `watched` one also holds what the machine's processor, memory, disks, network and GPUs do, every ten seconds.
    """
    mlflow = _mlflow()
    _choose_experiment(experiment_name(work))
    lineage = lineage_of(work)
    release = _release_run(work, lineage)
    tags = {PARENT: release, "stage": stage, **lineage}
    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
    with mlflow.start_run(run_name=stage, tags=tags, log_system_metrics=watched) as active:
        run = StageRun(active.info.run_id, release)
        _logs.bind({"run_id": run.run_id, "release_run": release, **lineage})
        run.log_params({"seed": params.seed, **_flat(getattr(params, stage.partition("@")[0], None), stage.partition("@")[0])})
        mlflow.log_dict(data_fingerprints(work), "data_fingerprints.json")
        try:
            yield run
        finally:
            _account(run)
    _leave_lineage(work, stage, run, lineage)


def _account(run: StageRun) -> None:
    """Record what the stage has used, and with it what all of the release has."""
    run.log_metrics(_costs.used_since_last())
    client = _mlflow().MlflowClient()
    experiment = client.get_run(run.release_id).info.experiment_id
    for name, figure in _costs.total(client.search_runs([experiment], f"tags.`{PARENT}` = '{run.release_id}'")).items():
        client.log_metric(run.release_id, name, figure)


def _leave_lineage(work: Workspace, stage: str, run: StageRun, lineage: Mapping[str, str]) -> None:
    """Say beside the reports what the stage's results were made from; no output of DVC, because run ids differ each time."""
    told = {**lineage, "stage": stage, "run_id": run.run_id, "release_run": run.release_id}
    with fresh_file(work.reports / "lineage" / f"{stage}.json") as beside:
        beside.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def end_release(
    run: StageRun,
    metrics: Mapping[str, float | None],
    files: Sequence[Path],
    *,
    settings: Mapping[str, Any] = NOTHING,
    tags: Mapping[str, str] = NOTHING,
    charts: Mapping[str, str] = NOTHING,
) -> None:
    """Close the release's own run, with the numbers, settings, tags, pages and charts (SVG by name) that a person compares releases by."""
    client = _mlflow().MlflowClient()
    for name, value in settings.items():
        client.log_param(run.release_id, name, value)
    for name, text in tags.items():
        client.set_tag(run.release_id, name, text)
    for name, svg in charts.items():
        client.log_text(run.release_id, svg, f"charts/{name}.svg")
    for name, number in metrics.items():
        if number is not None:
            client.log_metric(run.release_id, name, number)
    for file in files:
        client.log_artifact(run.release_id, str(file))
    client.set_terminated(run.release_id, "FINISHED")
    groups = {"metrics": filter(_compares, metrics), "tags": tags, "params": settings}
    columns = [f"{group}.`{name}`" for group, names in groups.items() for name in names]
    _offer_view(client, client.get_run(run.release_id).info.experiment_id, columns)


def _offer_view(client: Any, experiment: str, columns: Sequence[str]) -> None:
    """Let the experiment's page link to its releases side by side, in the form in which MLflow keeps a view that a person shares."""
    view = {"searchFilter": "tags.release LIKE '%'", "orderByKey": "attributes.start_time", "orderByAsc": False, "selectedColumns": columns}
    client.set_experiment_tag(experiment, f"{VIEW}{RELEASES}", json.dumps(view))
    if NOTE not in client.get_experiment(experiment).tags:  # a person's own stays
        client.set_experiment_tag(
            experiment, NOTE, f"[Releases side by side](#/experiments/{experiment}/runs?viewStateShareKey={RELEASES})"
        )


def _compares(metric: str) -> bool:
    """Whether a metric is one of the few that releases are told apart by at first sight."""
    return metric.endswith(("mean_balanced_accuracy", "hardest_third", "unreadable", "location_accuracy")) or "_minus_" in metric


def spent(run: StageRun) -> dict[str, str]:
    """What went into the results that there are now: hours and cost, for the tags of a version."""
    client = _mlflow().MlflowClient()
    runs = client.search_runs([client.get_run(run.run_id).info.experiment_id], "tags.stage LIKE '%'", max_results=1000)
    return {name: f"{figure:.4f}" for name, figure in _costs.total(_costs.newest_of_each_stage(runs)).items()}


def experiment_name(work: Workspace) -> str:
    """The MLflow experiment of a workspace."""
    return "iadr1" if work.name == "root" else f"iadr1-{work.name}"


def lineage_of(work: Workspace) -> dict[str, str]:
    """What a result was made from: the commit, the parameters and DVC's lock."""
    return {
        "git_commit": _git("rev-parse", "HEAD") or "none",
        "git_dirty": str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower(),
        "params_sha256": _sha256(work.params_file),
        "dvc_lock_sha256": _sha256(work.params_file.with_name("dvc.lock")),
    }


def data_fingerprints(work: Workspace) -> dict[str, str]:
    """The content hash of every output below the data folder, as DVC's lock states it."""
    lock = work.params_file.with_name("dvc.lock")
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {}) if lock.is_file() else {}
    outs = (out for stage in stages.values() for out in stage.get("outs", ()))
    return {out["path"]: out.get("md5", "") for out in outs if Path(out["path"]).is_relative_to(work.data)}


def _mlflow() -> Any:
    # Absolute and in the environment: a relative one makes a second database where a child has another working folder.
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{Path('mlflow.db').absolute()}")
    import mlflow

    return mlflow


def _choose_experiment(name: str) -> None:
    mlflow = _mlflow()
    if os.environ["MLFLOW_TRACKING_URI"].startswith("sqlite") and mlflow.get_experiment_by_name(name) is None:
        mlflow.create_experiment(name, artifact_location=Path("mlartifacts", name).absolute().as_uri())
    mlflow.set_experiment(name)


def _release_run(work: Workspace, lineage: Mapping[str, str]) -> str:
    mlflow = _mlflow()
    client, experiment = mlflow.MlflowClient(), mlflow.get_experiment_by_name(experiment_name(work))
    release = f"{lineage['git_commit'][:8]}-{lineage['params_sha256'][:8]}"
    found = client.search_runs([experiment.experiment_id], f"tags.release = '{release}'", max_results=1)
    if found:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return str(found[0].info.run_id)
    tags = {"release": release, **{name: value for name, value in lineage.items() if name != "dvc_lock_sha256"}}
    made = client.create_run(experiment.experiment_id, tags=tags, run_name=f"release {release}")
    client.log_dict(made.info.run_id, yaml.safe_load(work.params_file.read_text(encoding="utf-8")), "params.yaml")
    return str(made.info.run_id)


def _flat(value: Any, name: str) -> dict[str, Any]:
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    elif hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, dict):
        return {key: leaf for part, child in value.items() for key, leaf in _flat(child, f"{name}.{part}").items()}
    return {} if value is None else {name: value}


def _opened(image: Any) -> Any:
    from PIL import Image

    return Image.open(image).convert("RGB") if isinstance(image, str | Path) else image


def _picture(image: Any) -> Any:
    return _mlflow().Image(_opened(image))


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none"
