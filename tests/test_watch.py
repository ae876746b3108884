"""The live model looked after, and old versions on a new benchmark: on a tiny model with real observations and, marked slow, a real registry."""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from iadr1.drift import Limits, read_observations
from iadr1.engines import ENGINES, Generated, images_of
from iadr1.errors import DatasetError, ModelError, ParamsError
from iadr1.registry import Found
from iadr1.report import read_predictions
from iadr1.samples import write_samples
from tasks import _backfill, _watch
from tests.stages import workspace
from tests.tiny import tiny_backbone, tiny_samples

ROOT = Path(__file__).parents[1]
YES = "<think>A dark line.</think><location>top left</location><type>scratch</type><answer>Yes</answer>"
NO = "<think>Even.</think><answer>No</answer>"


class Dark:
    """An engine that calls an image defective when it has a dark corner; it counts what it is asked."""

    asked = 0

    def __init__(self, model=None, **settings):
        pass

    def __call__(self, chats, done=lambda count: None):
        Dark.asked += len(chats)
        corners = [Image.open(images_of(chat)[-1]).convert("L").getpixel((8, 8)) for chat in chats]
        return [Generated(YES if corner < 50 else NO, False, 9, p_yes=0.9 if corner < 50 else 0.1) for corner in corners]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with forty prepared test samples; its live model is found without a registry."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(ENGINES, "transformers", Dark)
    Dark.asked = 0
    Path("images").mkdir()
    samples = tiny_samples(Path("images"), 40, dataset="mvtec")
    write_samples(Path("data/prepared/test/mvtec.jsonl"), samples)
    Path("model").mkdir()
    Path("model/weights").write_text("stand for a model")
    found = Found("iad-r1 version 3 (production)", Path("model"), {"batch_size": 2, "max_new_tokens": 4, "max_pixels": None})
    monkeypatch.setattr(_watch, "live", lambda: found)
    monkeypatch.setattr(_backfill, "registered", lambda uri: found)
    return workspace(evaluate={"datasets": {"mvtec": {"layout": "ds_mvtec", "folder": "mvtec"}}})


def watched(project, new=None, labels=None, reference=None):
    told, work = project
    given = argparse.Namespace(new=new, labels=labels, reference=reference, model=None, **vars_of(Limits()))
    return _watch.watched(told, work, given)


def vars_of(limits):
    return {"distance": limits.distance, "drop": limits.drop, "alpha": limits.alpha, "minimum": limits.minimum}


def photographed(folder, count, brighter=0):
    """A folder of parts as `tiny_samples` makes them, under brighter light."""
    folder.mkdir()
    for sample in tiny_samples(folder, count):
        image = Image.open(sample.images[0])
        image.point(lambda grey: min(255, grey + brighter)).save(sample.images[0])
    return folder


def test_the_test_sets_are_asked_again_and_are_the_reference_of_all_that_follows(project):
    _, batch, drift, file = watched(project)
    assert (batch.name, drift.verdict, drift.images) == ("tests", "steady", (40, 40))
    assert [measure.name for measure in drift.measures][-1] == "balanced_accuracy" and drift.measures[-1].new == 100
    assert Path("reports/watch/iad-r1-version-3.jsonl").is_file() and len(read_observations(file)) == 40
    asked = Dark.asked
    watched(project)
    assert Dark.asked == asked + 40
    assert not list(Path(".checkpoints/answers").glob("watch-*"))


def test_a_batch_under_other_light_has_drifted_and_one_under_the_same_has_not(project):
    assert watched(project, photographed(Path("today"), 40))[2].verdict == "steady"
    _, batch, drift, _ = watched(project, photographed(Path("tomorrow"), 40, brighter=40))
    assert drift.verdict == "drift" and "brightness" in drift.reason
    assert "balanced_accuracy" not in [measure.name for measure in drift.measures] and not batch.labels


def test_a_batch_that_a_person_found_good_can_be_the_reference(project):
    file = watched(project, photographed(Path("good"), 40, brighter=40))[3]
    assert watched(project, photographed(Path("next"), 40, brighter=40), reference=file)[2].verdict == "steady"


def test_labels_that_come_back_bring_the_accuracy(project):
    folder = photographed(Path("today"), 40)
    rows = [f"{number:03}.png,{'no' if number % 2 else 'yes'}" for number in range(40)]  # all the wrong way round
    Path("labels.csv").write_text("\n".join(["image,anomalous", *rows]))
    drift = watched(project, folder, Path("labels.csv"))[2]
    assert drift.verdict == "drift" and drift.measures[-1].name == "balanced_accuracy" and drift.measures[-1].new == 0
    Path("labels.csv").write_text("image,anomalous\n000.png,maybe\n")
    with pytest.raises(DatasetError, match=r"labels\.csv:2: expected image,anomalous .*maybe"):
        watched(project, folder, Path("labels.csv"))


def test_broken_images_are_told_and_an_empty_folder_is_refused(project):
    folder = photographed(Path("today"), 40)
    (folder / "cut.png").write_bytes((folder / "000.png").read_bytes()[:100])
    found, batch, drift, file = watched(project, folder)
    assert batch.unreadable == ["cut.png"] and "1 images could not be read: cut.png" in _watch.page(found, batch, drift, file)
    Path("empty").mkdir()
    with pytest.raises(DatasetError, match="empty: no images"):
        watched(project, Path("empty"))


def test_too_few_images_decide_nothing(project):
    assert watched(project, photographed(Path("today"), 3, brighter=80))[2].verdict == "undecided"
    assert _watch.EXIT == {"steady": 0, "drift": 3, "undecided": 1}


def test_old_versions_are_compared_on_a_benchmark_and_nothing_is_asked_twice(project, capsys):
    told, work = project
    _backfill.evaluate(told, work, "iad-r1", 3)
    assert [one.model for one in read_predictions(Path("reports/backfill/3/mvtec-0.jsonl"))] == ["iad-r1-3"] * 40
    _backfill.evaluate(told, work, "iad-r1", 3)
    assert Dark.asked == 40
    _backfill.evaluate(told, work, "iad-r1", 12)
    page = _backfill.told(_backfill.compared(told, work))
    assert [line.split("|")[1].strip() for line in page.splitlines()[2:4]] == ["3", "12"]
    assert page.count("100.0 [100.0, 100.0]") == 2
    write_samples(work.prepared / "test/mvtec.jsonl", tiny_samples(Path("images"), 20, dataset="mvtec"))
    assert not _backfill.compared(told, work)
    assert "about other samples" in capsys.readouterr().err
    with pytest.raises(ModelError, match="no version has been evaluated"):
        _backfill.told({})


@pytest.mark.parametrize("text, expected", [("3", {3}), ("1-4", {1, 2, 3, 4}), ("1-2, 9", {1, 2, 9}), ("4-1", set())])
def test_versions_are_numbers_and_ranges(text, expected):
    assert _backfill.numbers(text) == expected


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "1..2", "²"])
def test_what_names_no_versions_is_refused(text):
    with pytest.raises(ParamsError, match="write numbers and ranges"):
        _backfill.numbers(text)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_registered_model_is_watched_and_backfilled_by_command(mlflow_store):
    from tasks import register
    from tests.test_stages_train import params
    from tests.test_tracking import evaluated, release

    told, work = release(mlflow_store, "root")
    shutil.copytree(tiny_backbone(), work.models / "sc_grpo", dirs_exist_ok=True)
    evaluated(work, right=10)
    register.main(told, work)
    images = mlflow_store / "images"
    images.mkdir()
    samples = tiny_samples(images, 32, dataset="mvtec")
    write_samples(mlflow_store / "data/prepared/test/mvtec.jsonl", samples)
    (mlflow_store / "params.yaml").write_text(json.dumps(params()))

    def command(*arguments):
        done = subprocess.run([sys.executable, "-m", *arguments], cwd=mlflow_store, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    model = ("--model", "models:/iad-r1/1")
    assert command("tasks._watch", *model)[0] == 0
    code, said = command("tasks._watch", str(photographed(mlflow_store / "bright", 32, brighter=50)), *model)
    assert code == 3 and "drift of brightness" in said
    assert json.loads((mlflow_store / "reports/watch.json").read_text())["verdict"] == "drift"
    assert command("tasks._backfill", "versions") == (0, "1\n")
    assert command("tasks._backfill", "versions", "1-2")[1] == "backfill: iad-r1 has no version 2; there are 1.\n"
    assert command("tasks._backfill", "evaluate", "1")[0] == 0
    code, said = command("tasks._backfill", "table")
    assert code == 0 and "| 1 " in said and (mlflow_store / "reports/backfill/table.md").read_text() in said

    import mlflow

    (parent, *_), runs = [
        mlflow.search_runs(experiment_names=["iadr1-watch"], output_format="list", filter_string=kind) for kind in FILTERS
    ]
    assert parent.info.status == "FINISHED" and parent.data.tags["verdict"] == "drift"
    assert sorted(run.data.tags["verdict"] for run in runs) == ["drift", "steady"]


FILTERS = ("tags.release LIKE '%'", "tags.stage = 'watch'")
