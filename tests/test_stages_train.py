"""The stages pa_sft, sc_grpo and evaluate on tiny data, in a workspace of their own, with MLflow on SQLite."""

import csv
import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iadr1.engines import Generated
from iadr1.errors import DatasetError, ModelError, ParamsError, Stopped
from iadr1.params import Params, parse
from iadr1.report import read_predictions, thresholds
from iadr1.rewards import REWARDS
from iadr1.samples import read_samples, write_samples
from tasks._run import Workspace, run_stage
from tests.tiny import SIDE, tiny_backbone, tiny_samples

FOLDERS = {"data": "data", "models": "models", "reports": "reports", "checkpoints": ".checkpoints"}
TRAINER = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "logging_steps": 1, "save_steps": 2}
EVALUATE = {"models": ["base", "pa_sft", "sc_grpo"], "engine": "transformers", "batch_size": 4, "max_new_tokens": 8}


def params(**changes: dict) -> dict:
    """The parameters of a tiny run, with some sections changed."""
    tree = {
        "seed": 0,
        "experiment": {"name": "root", "params": "params.yaml", "fetched": "data/raw", **FOLDERS},
        "fetch": {"source": "synthetic", "path": None, "train_images": 8, "test_images": 8},
        "prepare": {
            "train": {},
            "pa_sft_rows": 8,
            "sc_grpo_rows": 8,
            "validation_rows": 4,
            "anomalous_share": 0.5,
            "pa_sft_share": 1.0,
            "chains": "expert_ad",
            "types": "fine",
            "grid": 3,
            "shots": 0,
            "teacher": None,
            "reviews": None,
            "reject": [],
        },
        "validate": {"minimum_rows": 1, "minimum_minority_share": 0.1},
        "pa_sft": {"backbone": str(tiny_backbone()), "max_pixels": SIDE * SIDE, **TRAINER},
        "sc_grpo": {"preset": "paper", "rewards": dict.fromkeys(REWARDS, 1.0), "max_completion_length": 8, "table_steps": 1, **TRAINER},
        "evaluate": {"datasets": {"mvtec": {"layout": "ds_mvtec", "folder": "mvtec"}}, "shots": [0], **EVALUATE},
        "register": {"name": "iad-r1", "gates": {"mean_balanced_accuracy": 0.0}},
    }
    for section, change in changes.items():
        tree[section] = {**tree[section], **change}
    return tree


def workspace(tree: dict) -> tuple[Params, Workspace]:
    """The parameters and their workspace, relative to the current folder."""
    file = Path("params.yaml")
    file.write_text(json.dumps(tree), encoding="utf-8")
    read = parse(tree, source="params.yaml")
    return read, Workspace.of(read, file)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with prepared samples."""
    folder = tmp_path_factory.mktemp("project")
    images = folder / "images"
    images.mkdir()
    samples = [
        replace(sample, images=(str(Path(sample.images[0]).relative_to(folder)),)) for sample in tiny_samples(images, 16, dataset="mvtec")
    ]
    prepared = folder / "data" / "prepared"
    write_samples(prepared / "pa_sft.jsonl", samples[:8])
    write_samples(prepared / "validation.jsonl", samples[8:12])
    write_samples(prepared / "sc_grpo.jsonl", [replace(sample, reasoning=None) for sample in samples[:8]])
    write_samples(prepared / "test" / "mvtec.jsonl", [replace(sample, reasoning=None) for sample in samples[10:]])
    return folder


@pytest.fixture(autouse=True)
def inside(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")


@pytest.fixture(scope="module")
def outputs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after the three stages have run once."""
    from tasks import evaluate, pa_sft, sc_grpo

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
        patch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.5")
        told, work = workspace(params())
        pa_sft.main(told, work)
        sc_grpo.main(told, work)
        evaluate.main(told, work, dataset="mvtec", shots=0)
    return root


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_training_stages_leave_a_model_a_curve_and_metrics(outputs: Path) -> None:
    for stage, column in (("pa_sft", "loss"), ("sc_grpo", "rewards/consistency")):
        assert (outputs / "models" / stage / "model.safetensors").stat().st_mode & 0o777 == 0o644
        curve = rows(outputs / "reports" / f"{stage}.csv")
        assert [row["step"] for row in curve] == ["1", "2"] and all(float(row[column]) >= 0 for row in curve)
        assert json.loads((outputs / "reports" / f"{stage}.json").read_text())["steps"] == 2


def test_no_checkpoint_is_left_after_a_success_but_answers_are(outputs: Path) -> None:
    left = [path.relative_to(outputs / ".checkpoints") for path in (outputs / ".checkpoints").rglob("*") if path.is_file()]
    assert {path.parts[:2] for path in left} == {("answers", "mvtec-0")}
    assert {path.parts[2].rpartition("-")[0] for path in left} == {"base", "pa_sft", "sc_grpo"}


def test_each_model_is_asked_and_read_in_its_own_way(outputs: Path) -> None:
    predictions = read_predictions(outputs / "data" / "predictions" / "mvtec-0.jsonl")
    assert {(one.model, one.reader) for one in predictions} == {("base", "free"), ("pa_sft", "tags"), ("sc_grpo", "tags")}
    assert len(predictions) == 18 and all(one.tokens <= 8 for one in predictions)


def test_the_report_holds_every_model_and_no_time(outputs: Path) -> None:
    text = (outputs / "reports" / "evaluate" / "mvtec-0.json").read_text()
    assert json.loads(text)["models"].keys() == {"base", "pa_sft", "sc_grpo"} and "seconds" not in text


def test_mlflow_holds_curves_tables_and_rates(outputs: Path) -> None:
    import mlflow

    found = {
        run.data.tags["stage"]: run
        for run in mlflow.search_runs(search_all_experiments=True, output_format="list")
        if "stage" in run.data.tags
    }
    assert {"pa_sft", "sc_grpo", "evaluate@mvtec-0"} <= found.keys()
    assert {"loss", "eval_loss"} <= found["pa_sft"].data.metrics.keys()
    assert {"rewards/accuracy/mean", "reward", "kl", "reward_end"} <= found["sc_grpo"].data.metrics.keys()
    assert {"base.balanced_accuracy", "sc_grpo.tpr", "base.seconds_per_image"} <= found["evaluate@mvtec-0"].data.metrics.keys()


def test_mlflow_holds_rewards_by_label_the_speed_the_health_and_the_machine(outputs: Path) -> None:
    import mlflow

    found = {
        run.data.tags["stage"]: run
        for run in mlflow.search_runs(search_all_experiments=True, output_format="list")
        if "stage" in run.data.tags
    }
    told = found["sc_grpo"].data.metrics
    # A step has one prompt here, the validation both kinds.
    both = [f"eval_rewards/{name}/{label}/mean" for name in ("consistency", "accuracy") for label in ("normal", "anomalous")]
    assert {*both, "eval_rewards/location/anomalous/mean"} <= told.keys() and "eval_rewards/location/normal/mean" not in told
    assert {f"rewards/accuracy/{label}/{what}" for label in ("normal", "anomalous") for what in ("mean", "std")} & told.keys()
    assert {"completions/mean_length", "kl", "entropy", "frac_reward_zero_std", "unreadable", "learning_rate"} <= told.keys()
    for stage in ("pa_sft", "sc_grpo"):
        metrics = found[stage].data.metrics
        assert metrics["tokens_per_second"] > 0 and "mfu" not in metrics
        assert {"system/cpu_utilization_percentage", "system/system_memory_usage_percentage"} <= metrics.keys()


def test_mlflow_holds_a_table_of_completions_every_so_many_steps(outputs: Path) -> None:
    import mlflow

    (run,) = (
        run for run in mlflow.search_runs(search_all_experiments=True, output_format="list") if run.data.tags.get("stage") == "sc_grpo"
    )
    tables = {file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id) if file.path.startswith("completions")}
    assert {"completions_first.json", "completions_00001.json", "completions_last.json"} <= tables
    table = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/completions_00001.json")
    assert {"image", "completion", "sample", *REWARDS, "advantage"} <= set(table["columns"]) and len(table["data"]) == 4


def test_a_second_evaluation_writes_the_same_bytes(outputs: Path) -> None:
    from tasks import evaluate

    files = [outputs / "data/predictions/mvtec-0.jsonl", outputs / "reports/evaluate/mvtec-0.json"]
    before = [path.read_bytes() for path in files]
    shutil.rmtree(outputs / ".checkpoints" / "answers")
    evaluate.main(*workspace(params()), dataset="mvtec", shots=0)
    assert [path.read_bytes() for path in files] == before


class Killed(Exception):
    """What ends a run in the middle."""


def counting_engine(asked: list[int], *, dies_after: int) -> Any:
    """An engine that says no, writes down how many it was asked, and dies after so many calls."""

    def engine(model: Path, **_: object) -> Any:
        def answer(chats: Any, done: Any) -> list[Generated]:
            if len(asked) == dies_after:
                raise Killed
            asked.append(len(chats))
            return [Generated("No.", False, 2, 0.25, "stop", 0.5) for _ in chats]

        return answer

    return engine


def test_an_evaluation_goes_on_where_a_killed_one_was_and_asks_nothing_twice(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import _asking, evaluate

    told, work = workspace(params(evaluate={"models": ["base"], "max_new_tokens": 9}))
    asked: list[int] = []
    monkeypatch.setattr(_asking, "PART", 2)
    monkeypatch.setitem(_asking.ENGINES, "transformers", counting_engine(asked, dies_after=2))
    with pytest.raises(Killed):
        evaluate.main(told, work, dataset="mvtec", shots=0)
    asked[:] = [0]
    evaluate.main(told, work, dataset="mvtec", shots=0)
    assert asked == [0, 2]
    evaluate.main(told, work, dataset="mvtec", shots=0)
    assert asked == [0, 2]
    (one, *_) = read_predictions(outputs / "data" / "predictions" / "mvtec-0.jsonl")
    assert (one.text, one.p_yes, one.finish, one.seconds) == ("No.", 0.25, "stop", None)


def test_each_protocol_is_a_column_of_its_own(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import evaluate

    told = params(evaluate={"models": ["base", "sc_grpo"], "protocols": ["paper", "fair"], "latency": True, "max_new_tokens": 4})
    evaluate.main(*workspace(told), dataset="mvtec", shots=0)
    predictions = read_predictions(outputs / "data" / "predictions" / "mvtec-0.jsonl")
    readers = {one.model: one.reader for one in predictions}
    assert readers == {"base": "free", "base-fair": "free", "sc_grpo": "tags", "sc_grpo-fair": "free"}
    said = {model: [(one.text, one.p_yes) for one in predictions if one.model == model] for model in readers}
    assert said["base"] == said["base-fair"] and said["sc_grpo"] != said["sc_grpo-fair"]
    assert all(one.seconds and one.p_yes is not None for one in predictions if one.model == "base")


def test_a_threshold_is_chosen_on_validation_alone(outputs: Path) -> None:
    from tasks import evaluate

    told = params(evaluate={"models": ["base"], "threshold": True, "max_new_tokens": 4})
    evaluate.main(*workspace(told), dataset="mvtec", shots=0)
    reports = outputs / "reports" / "evaluate"
    asked = read_predictions(reports / "mvtec-0.validation.jsonl")
    assert {one.sample_id for one in asked} == {sample.id for sample in read_samples(outputs / "data" / "prepared" / "validation.jsonl")}
    found = json.loads((reports / "mvtec-0.json").read_text())["models"]["base"]["datasets"]["mvtec"]["p_yes"]["at_threshold"]
    assert found["threshold"] == thresholds(asked)["base"]
    assert len(read_predictions(outputs / "data" / "predictions" / "mvtec-0.jsonl")) == 6


def test_questions_with_options_are_asked_about_the_same_images(outputs: Path) -> None:
    from tasks import evaluate

    asked = {"Question": "Which?", "Answer": "B", "Options": {"A": "Hole", "B": "None"}, "type": "Defect Classification"}
    entries = {f"MMAD/images/{number:03}.png": {"conversation": [asked, {**asked, "type": "Anomaly Detection"}]} for number in (10, 11, 99)}
    (outputs / "mmad.json").write_text(json.dumps(entries))
    told = params(evaluate={"models": ["base"], "questions": "mmad.json", "max_new_tokens": 4})
    evaluate.main(*workspace(told), dataset="mvtec", shots=0)
    reports = outputs / "reports" / "evaluate"
    found = json.loads((reports / "mvtec-0.questions.json").read_text())["base"]
    assert {kind: rates["n"] for kind, rates in found.items()} == {"Anomaly Detection": 2, "Defect Classification": 2, "mean": 4}
    lines = [json.loads(line) for line in (reports / "mvtec-0.questions.base.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines][:2] == ["MMAD/images/010.png#0", "MMAD/images/010.png#1"] and "chosen" in lines[0]
    assert len(read_predictions(outputs / "data" / "predictions" / "mvtec-0.jsonl")) == 6


def test_fewer_references_than_shots_are_said(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tasks import evaluate

    evaluate.main(*workspace(params(evaluate={"models": ["base"], "max_new_tokens": 2})), dataset="mvtec", shots=1)
    assert "6 of 6 samples have fewer than 1 reference images" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes, dataset, error, message",
    [
        ({}, "mvtek", ParamsError, "did you mean mvtec?"),
        ({"evaluate": {"models": ["pa_stf"]}}, "mvtec", ParamsError, "did you mean pa_sft?"),
        ({"pa_sft": {"backbone": "images"}}, "mvtec", ModelError, "config.json is missing"),
    ],
)
def test_an_evaluation_that_cannot_be_made_says_why(root: Path, changes: dict, dataset: str, error: type, message: str) -> None:
    from tasks import evaluate

    with pytest.raises(error, match=message):
        evaluate.main(*workspace(params(**changes)), dataset=dataset, shots=0)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("learning_rat", 1.0, "pa_sft.learning_rat is not a parameter; did you mean learning_rate"),
        ("output_dir", "x", "pa_sft.output_dir is decided by the stage"),
        ("lr_scheduler_type", "sideways", "pa_sft: SFTConfig refuses these keys"),
    ],
)
def test_a_trainer_key_that_cannot_be_is_refused_by_name(root: Path, key: str, value: object, message: str) -> None:
    from tasks import pa_sft

    with pytest.raises(ParamsError, match=message):
        pa_sft.main(*workspace(params(pa_sft={key: value})))


@pytest.mark.parametrize("stage, said", [("pa_sft", "global batch 8 = 1 processes x 4 at once x 2"), ("sc_grpo", "beta 0.04, epsilon 0.2")])
def test_a_dry_run_tells_the_plan_and_trains_nothing(outputs: Path, capsys: pytest.CaptureFixture[str], stage: str, said: str) -> None:
    module = importlib.import_module(f"tasks.{stage}")
    before = {path: path.stat().st_mtime_ns for path in outputs.rglob("*") if path.is_file() and path.name != "params.yaml"}
    module.main(*workspace(params(**{stage: {"global_batch_size": 8}})), dry_run=True)
    told = capsys.readouterr().out
    assert said in told and "2 steps" in told and "GiB a process: weights" in told
    assert {path: path.stat().st_mtime_ns for path in outputs.rglob("*") if path.is_file() and path.name != "params.yaml"} == before


def test_a_training_that_was_asked_to_stop_ends_with_the_exit_code_of_sigterm(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace(params())
    monkeypatch.setattr("sys.argv", ["sc_grpo", "--dry-run"])

    def main(told: Params, work: Workspace, *, dry_run: bool) -> None:
        raise Stopped(f"asked to stop, dry run {dry_run}")

    with pytest.raises(SystemExit) as ended:
        run_stage("sc_grpo", main, flags={"dry-run": "tell the plan"})
    assert ended.value.code == 143 and capsys.readouterr().err == "sc_grpo: asked to stop, dry run True\n"


def test_a_limit_that_is_none_and_a_recipe_that_is_none_are_refused(root: Path) -> None:
    from tasks import pa_sft, sc_grpo

    with pytest.raises(ParamsError, match=r"pa_sft\.limits\.los_rise is not a limit; did you mean loss_rise\?"):
        pa_sft.main(*workspace(params(pa_sft={"limits": {"los_rise": 1.0}})))
    with pytest.raises(ParamsError, match=r"sc_grpo\.recipe: 'papers' is not a recipe"):
        sc_grpo.main(*workspace(params(sc_grpo={"recipe": "papers"})))


def test_an_unreadable_image_is_named_before_training(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import pa_sft

    told, work = workspace(params())
    broken = root / "images" / "000.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:40])
    try:
        with pytest.raises(DatasetError, match=r"1 of 12 images cannot be read: images/000\.png"):
            pa_sft.main(told, work)
    finally:
        broken.write_bytes(content)


@pytest.fixture
def varied(root: Path) -> dict:
    """The parameters of a variant beside the run of this file, its rows without chains; one row has a reference."""
    rows = [replace(sample, reasoning=None) for sample in read_samples(root / "data/prepared/pa_sft.jsonl")]
    for part in ("pa_sft", "sc_grpo", "validation"):
        write_samples(root / "varied/data/prepared" / f"{part}.jsonl", [replace(rows[0], references=("images/015.png",)), *rows[1:]])
    return {"experiment": {name: f"varied/{name}" for name in FOLDERS}}


def test_answers_alone_and_references_are_trained_on_where_the_parameters_say_so(outputs: Path, varied: dict) -> None:
    from tasks import pa_sft, sc_grpo

    with pytest.raises(DatasetError, match="16 of 16 rows have no reasoning"):
        pa_sft.main(*workspace(params(**varied)))
    told, work = workspace(params(prepare={"chains": "answers_only", "shots": 1}, **varied))
    pa_sft.main(told, work)
    sc_grpo.main(told, work)
    answers, chains = (rows(outputs / folder / "pa_sft.csv")[0]["loss"] for folder in ("varied/reports", "reports"))
    assert answers != chains
    assert json.loads((outputs / "varied/reports/sc_grpo.json").read_text())["steps"] == 2


def test_which_checkpoint_was_kept_is_told_and_its_figures_are_those_that_stay(
    outputs: Path, varied: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    from tasks import pa_sft

    # A learning rate that unlearns: the first checkpoint is the best.
    keys = {"load_best_model_at_end": True, "max_steps": 3, "save_steps": 1, "learning_rate": 3.0, "lr_scheduler_type": "constant"}
    pa_sft.main(*workspace(params(prepare={"chains": "answers_only"}, pa_sft=keys, **varied)))
    told = json.loads((outputs / "varied/reports/pa_sft.json").read_text())
    losses = {int(row["step"]): float(row["eval_loss"]) for row in rows(outputs / "varied/reports/pa_sft.csv")}
    assert told["steps"] == 3 > told["best_step"] == min(losses, key=lambda step: losses[step])
    assert told["eval_loss"] == losses[told["best_step"]]
    assert (
        f"pa_sft: kept the model of step {told['best_step']} of 3, whose validation loss is the lowest: {told['eval_loss']:.4g}."
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("stage", ["pa_sft", "sc_grpo"])
def test_a_reference_is_read_where_it_is_shown_and_nowhere_else(outputs: Path, varied: dict, stage: str) -> None:
    import importlib

    for part in ("pa_sft", "sc_grpo", "validation"):
        file = outputs / "varied/data/prepared" / f"{part}.jsonl"
        write_samples(file, [replace(sample, references=("images/gone.png",)) for sample in read_samples(file)])
    with pytest.raises(DatasetError, match=r"1 of 9 images cannot be read: images/gone\.png"):
        importlib.import_module(f"tasks.{stage}").main(*workspace(params(prepare={"chains": "answers_only", "shots": 1}, **varied)))
