"""MLflow as a person finds it after a release, and the register stage: one version for one model, staging only past the gates."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from iadr1.errors import ModelError, ReportError
from iadr1.params import Compared, Gates, Params, load
from iadr1.report import EvalReport, Prediction, write_predictions
from iadr1.samples import Sample, write_samples
from tasks import register
from tasks._run import Workspace
from tasks._tracking import lineage_of, stage_run

ROOT = Path(__file__).parent.parent
SHIPPED = load(ROOT / "params.yaml")
DATASETS = {name: SHIPPED.evaluate.datasets[name] for name in ("mvtec", "visa")}


def release(folder: Path, name: str, floor: float = 75.0) -> tuple[Params, Workspace]:
    """Parameters and a workspace with a parameter file and a model of its own below `folder`."""
    home = SHIPPED.experiment.model_copy(update={"name": name})
    evaluate = SHIPPED.evaluate.model_copy(update={"datasets": DATASETS, "models": ["base", "sc_grpo"]})
    gates = Gates(mean_balanced_accuracy=floor, no_regression=Compared(points=3.0, images=20))
    params = replace(SHIPPED, experiment=home, evaluate=evaluate, register=SHIPPED.register.model_copy(update={"gates": gates}))
    here = folder / name
    (here / "models" / "sc_grpo").mkdir(parents=True, exist_ok=True)
    (here / "models" / "sc_grpo" / "model.safetensors").write_bytes(b"weights")
    (here / "params.yaml").write_text(f"name: {name}")
    folders = ("raw", "data", "models", "reports", "checkpoints", "data/prepared", "models/pa_sft")
    return params, Workspace(name, here / "params.yaml", *(here / folder for folder in folders))


def evaluated(work: Workspace, *, right: int) -> None:
    """Reports of base and SC-GRPO on ten normal and ten anomalous images a data set; SC-GRPO sees `right` of the anomalous ones."""
    for dataset in DATASETS:
        said = [answer(dataset, number, model, right) for model in ("base", "sc_grpo") for number in range(20)]
        path = work.reports / "evaluate" / f"{dataset}-0.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(EvalReport.of(said).to_json())
        write_predictions(work.predictions / f"{dataset}-0.jsonl", said)
        write_samples(work.prepared / "test" / f"{dataset}.jsonl", [sample(dataset, number) for number in range(20)])


def answer(dataset: str, number: int, model: str, right: int) -> Prediction:
    anomalous = number < 10
    yes = model == "sc_grpo" and number < right
    text = "<think>x</think><answer>Yes</answer>" if yes else "<think>x</think><answer>No</answer>"
    return Prediction(f"{dataset}/{number}", dataset, "part", model, anomalous, text, visibility=(number + 1) / 10 if anomalous else None)


def sample(dataset: str, number: int) -> Sample:
    return Sample(f"{dataset}/{number}", dataset, "part", ("none.png",), number < 10)


def runs(work: Workspace) -> dict[str, object]:
    import mlflow

    found = mlflow.search_runs(experiment_names=[f"iadr1-{work.name}"], output_format="list")
    return {run.info.run_name.split()[0]: run for run in found}


def test_a_release_is_a_parent_run_and_each_stage_a_child_of_it(mlflow_store):
    params, work = release(mlflow_store, "family")
    for stage in ("pa_sft", "evaluate@mvtec-0"):
        with stage_run(work, stage, params) as run:
            run.log_metrics({"loss": 0.5, "nothing": None}, step=1)
    found = runs(work)
    assert set(found) == {"release", "pa_sft", "evaluate@mvtec-0"}
    parents = {found[stage].data.tags["mlflow.parentRunId"] for stage in ("pa_sft", "evaluate@mvtec-0")}
    assert parents == {found["release"].info.run_id}
    assert found["pa_sft"].data.metrics["loss"] == 0.5 and "nothing" not in found["pa_sft"].data.metrics
    assert found["pa_sft"].data.params["pa_sft.learning_rate"] == str(params.pa_sft.trainer["learning_rate"])
    assert found["evaluate@mvtec-0"].data.params["evaluate.batch_size"] == str(params.evaluate.batch_size)


def test_a_stage_that_fails_is_a_failed_run(mlflow_store):
    params, work = release(mlflow_store, "failing")
    with pytest.raises(ReportError), stage_run(work, "evaluate@visa-0", params):
        raise ReportError("no such report")
    assert runs(work)["evaluate@visa-0"].info.status == "FAILED"


def test_a_run_states_what_it_was_made_from(mlflow_store):
    params, work = release(mlflow_store, "lineage")
    lock = {"stages": {"prepare": {"outs": [{"path": str(work.data / "prepared"), "md5": "abc.dir"}, {"path": "elsewhere", "md5": "x"}]}}}
    work.params_file.with_name("dvc.lock").write_text(json.dumps(lock))
    with stage_run(work, "prepare", params):
        pass
    import mlflow

    run = runs(work)["prepare"]
    left = json.loads((work.reports / "lineage" / "prepare.json").read_text())
    assert left == {**lineage_of(work), "stage": "prepare", "run_id": run.info.run_id, "release_run": run.data.tags["mlflow.parentRunId"]}
    assert {key: run.data.tags[key] for key in lineage_of(work)} == lineage_of(work)
    assert len(run.data.tags["dvc_lock_sha256"]) == 64
    assert mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/data_fingerprints.json") == {str(work.data / "prepared"): "abc.dir"}


def test_hours_and_costs_are_on_the_stage_on_the_release_and_on_the_version(mlflow_store, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("IADR1_PRICE_CORE_HOUR", "36")
    params, work = release(mlflow_store, "costly")
    evaluated(work, right=9)
    with stage_run(work, "pa_sft", params):
        sum(range(1_000_000))
    with pytest.raises(ReportError), stage_run(work, "sc_grpo", params):
        raise ReportError("failed hours are used hours")
    found = runs(work)
    assert 0 < found["pa_sft"].data.metrics["cost"] == pytest.approx(36 * found["pa_sft"].data.metrics["core_hours"])
    both = [found[stage].data.metrics["core_hours"] for stage in ("pa_sft", "sc_grpo")]
    assert found["release"].data.metrics["core_hours"] == pytest.approx(sum(both))
    assert not (work.reports / "lineage" / "sc_grpo.json").exists()
    register.main(params, work)
    version = MlflowClient().get_model_version("iad-r1-costly", "1")
    assert float(version.tags["core_hours"]) == pytest.approx(both[0], abs=1e-4)
    assert {"gpu_hours", "cost"} <= set(version.tags)


def test_a_table_shows_its_images(mlflow_store):
    from PIL import Image

    params, work = release(mlflow_store, "pictures")
    Image.new("RGB", (8, 8)).save(mlflow_store / "part.png")
    with stage_run(work, "evaluate@visa-0", params) as run:
        run.log_table("examples", {"image": [mlflow_store / "part.png"], "text": ["No"]})
    import mlflow

    table = mlflow.artifacts.load_dict(f"{runs(work)['evaluate@visa-0'].info.artifact_uri}/examples.json")
    assert table["columns"] == ["image", "text"]
    assert table["data"][0][0]["type"] == "image"


def test_a_model_past_the_gates_is_staging_and_is_registered_once(mlflow_store):
    from mlflow import MlflowClient

    params, work = release(mlflow_store, "good")
    evaluated(work, right=9)
    register.main(params, work)
    first = json.loads((work.reports / "summary.json").read_text())["registered"]
    assert (first["name"], first["version"], first["alias"], first["gates"]) == ("iad-r1-good", 1, "staging", "passed")

    register.main(params, work)
    again = json.loads((work.reports / "summary.json").read_text())["registered"]
    assert again["version"] == 1 and "there already" in again["message"]

    evaluated(work, right=10)
    register.main(params, work)
    version = MlflowClient().get_model_version_by_alias("iad-r1-good", "staging")
    assert int(version.version) == 2
    assert {key: version.tags[key] for key in lineage_of(work)} == lineage_of(work)
    assert version.tags["gates"] == "passed"


def test_a_model_that_a_gate_refuses_is_registered_without_alias_and_told_why(mlflow_store, capsys):
    from mlflow import MlflowClient

    params, work = release(mlflow_store, "weak")
    evaluated(work, right=2)
    register.main(params, work)
    registered = json.loads((work.reports / "summary.json").read_text())["registered"]
    assert registered["alias"] is None
    assert registered["message"] in capsys.readouterr().out
    why = "mean_balanced_accuracy: mean balanced accuracy of 2 data sets is 60.0 %, not at least 75"
    assert registered["message"] == f"iad-r1-weak version 1, not promoted: {why}"
    assert json.loads((work.reports / "decision.json").read_text())["verdict"] == "refused"
    assert "**refused**" in (work.reports / "decision.md").read_text()
    assert not MlflowClient().get_registered_model("iad-r1-weak").aliases


@pytest.mark.parametrize("function", ["mlflow.pyfunc.log_model", "mlflow.artifacts.download_artifacts"], ids=["sent", "read back"])
def test_files_that_cannot_be_sent_or_read_back_are_told_in_a_line_and_make_no_version(mlflow_store, monkeypatch, function):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def refuses(*arguments, **named):
        raise MlflowException("API request to the bucket failed with 500\nits second line")

    params, work = release(mlflow_store, function.rpartition(".")[2].replace("_", "-"))
    evaluated(work, right=9)
    monkeypatch.setattr(function, refuses)
    told = (
        r"^iad-r1-\S+: its files could not be sent to MLflow's store \(API request to the bucket failed with 500\)\. No version was made\."
    )
    with pytest.raises(ModelError, match=told):
        register.main(params, work)
    assert not MlflowClient().search_model_versions(f"name = 'iad-r1-{work.name}'")


def test_the_summary_has_the_form_that_was_promised(mlflow_store):
    params, work = release(mlflow_store, "summary")
    evaluated(work, right=9)
    register.main(params, work)
    summary = json.loads((work.reports / "summary.json").read_text())
    model = summary["models"]["sc_grpo"]
    assert {"models", "registered"} == set(summary)
    assert summary["registered"]["lineage"].items() >= lineage_of(work).items()
    assert {"run_id", "release_run"} <= summary["registered"]["lineage"].keys()
    page = (work.reports / "report.html").read_text()
    assert f"iad-r1-summary version {summary['registered']['version']}" in page and "DVC lock" in page
    assert set(model["datasets"]) == set(DATASETS)
    assert {"n", "balanced_accuracy", "tpr", "tnr", "unreadable"} <= set(model["datasets"]["mvtec"])
    assert (model["mean_balanced_accuracy"], model["datasets"]["visa"]["tpr"], model["datasets"]["visa"]["tnr"]) == (95.0, 90.0, 100.0)
    assert model["hardest_third"] == 100.0
    page = (work.reports / "summary.md").read_text()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")]
    assert [line[0] for line in lines] == ["data set", "mvtec", "visa", "**mean**", "hardest third"]
    assert lines[0][2:] == ["base", "SC-GRPO"]
    assert lines[1][3].startswith("95.0 [") and lines[1][3].endswith(" 90.0/100.0")


def test_a_missing_report_is_told_with_what_to_do(mlflow_store):
    params, work = release(mlflow_store, "missing")
    with pytest.raises(ReportError, match=r"evaluate/mvtec-0\.json: no such report\. Run `dvc repro evaluate` to make it\."):
        register.main(params, work)


def test_releases_can_be_compared_at_one_click(mlflow_store):
    import mlflow

    params, work = release(mlflow_store, "compared")
    evaluated(work, right=9)
    register.main(params, work)
    run = runs(work)["release"]
    assert run.data.metrics["sc_grpo_minus_base"] == 45.0
    assert run.data.metrics["sc_grpo_minus_base.low"] < 45.0 < run.data.metrics["sc_grpo_minus_base.high"]
    assert (run.data.metrics["sc_grpo.tpr"], run.data.metrics["sc_grpo.mvtec"]) == (90.0, 95.0)
    assert run.data.params["pa_sft.backbone"] == params.pa_sft.backbone
    logged = {found.path for found in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert {"report.html", "comparison.md", "summary.md", "charts"} <= logged
    tags = mlflow.get_experiment(run.info.experiment_id).tags
    columns = json.loads(tags["mlflow.sharedViewState.releases"])["selectedColumns"]
    assert {"metrics.`sc_grpo_minus_base`", "metrics.`base.mean_balanced_accuracy`", "params.`sc_grpo.recipe`", "tags.`gates`"} <= set(
        columns
    )
    assert "viewStateShareKey=releases" in tags["mlflow.note.content"]
    markdown = (work.reports / "comparison.md").read_text()
    assert "sc_grpo minus base" in markdown and "Not comparable: The images were made" in markdown
