"""Experiments: folders of their own, the same graph, and clear words about what cannot be composed."""

from pathlib import Path

import pytest
import yaml

from iadr1.errors import DatasetError, Iadr1Error, ParamsError
from iadr1.params import load
from tasks._experiment import compose

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of what a composition reads, as the working folder, with a folder of images."""
    for name in ("params.yaml", "dvc.yaml", "experiments/real.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "images" / "bsdata").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_experiment_writes_into_folders_of_its_own(project):
    graph = compose("real", "images")
    params, root = load(graph.with_name("params.yaml")), load(Path("params.yaml"))
    assert graph == Path("experiments/real/dvc.yaml")
    assert params.fetch.path == "images"
    own, roots = (told.experiment.model_dump(exclude_none=True) for told in (params, root))
    assert [key for key in own if own[key] == roots[key]] == []


def test_only_the_stated_keys_change_and_a_stated_value_replaces_the_whole(project):
    compose("real", "images")
    params, root = load(Path("experiments/real/params.yaml")), load(Path("params.yaml"))
    assert set(params.evaluate.datasets) == {"magnetic_tile", "mpdd", "bsdata", "deeppcb", "elpv"}
    assert params.evaluate.batch_size == root.evaluate.batch_size
    assert params.sc_grpo == root.sc_grpo


def test_the_graph_is_the_roots_with_the_images_as_a_dependency(project):
    own, root = (yaml.safe_load(path.read_text())["stages"] for path in (compose("real", "images"), Path("dvc.yaml")))
    assert {stage.pop("wdir") for stage in own.values()} == {"../.."}
    assert own["fetch"].pop("deps") == [*root["fetch"].pop("deps"), "${fetch.path}"]
    assert own == root


def test_prepare_runs_again_when_the_reviews_change(project):
    Path("experiments/real.yaml").write_text("fetch: {source: folder}\nprepare: {reviews: experiments/reviews}\n")
    stages = yaml.safe_load(compose("real", "images").read_text())["stages"]
    assert stages["prepare"]["deps"][-1] == "${prepare.reviews}"


def test_composing_again_changes_nothing(project):
    first = [path.read_text() for path in (compose("real", "images"), Path("experiments/real/params.yaml"))]
    assert first == [path.read_text() for path in (compose("real", "images"), Path("experiments/real/params.yaml"))]


def test_a_made_experiment_keeps_its_images_below_its_data(project):
    Path("experiments/fast.yaml").write_text("fetch: {train_images: 10}\n")
    compose("fast", None)
    assert load(Path("experiments/fast/params.yaml")).experiment.fetched == "data/fast/raw"


@pytest.mark.parametrize(
    "name, data, error, said",
    [
        ("rael", "images", ParamsError, r"experiments/rael\.yaml: no such experiment; did you mean real\?"),
        ("raw", "images", ParamsError, "'raw' cannot be the name of an experiment"),
        ("../x", "images", ParamsError, "cannot be the name of an experiment: use a-z"),
        ("real", None, ParamsError, r"make run EXPERIMENT=real DATA=<folder>"),
        ("real", "absent", DatasetError, "DATA=absent: no such folder"),
        ("real", "empty", DatasetError, "DATA=empty: the folder is empty"),
    ],
)
def test_what_cannot_be_composed_is_told_with_what_to_do(project, name, data, error, said):
    (project / "empty").mkdir()
    with pytest.raises(error, match=said):
        compose(name, data)


@pytest.mark.parametrize(
    "text, said",
    [
        ("evaluat: {}", r"experiments/x\.yaml: evaluat is not a parameter; did you mean evaluate\?"),
        ("evaluate: {batchsize: 3}", r"experiments/x\.yaml: evaluate\.batchsize is not a parameter; did you mean batch_size\?"),
        ("evaluate: 3", r"experiments/x\.yaml: evaluate has to hold keys and values; found 3"),
        ("experiment: {data: data}", r"experiments/x\.yaml: experiment is not a parameter"),
        ("fetch: {source: folders}", r"experiments/x\.yaml: fetch\.source"),
    ],
)
def test_a_key_that_no_parameter_has_is_refused_in_the_experiments_name(project, text, said):
    Path("experiments/x.yaml").write_text(text)
    with pytest.raises(Iadr1Error, match=said):
        compose("x", None)


def test_images_for_an_experiment_that_makes_its_own_are_refused(project):
    Path("experiments/fast.yaml").write_text("fetch: {train_images: 10}\n")
    with pytest.raises(ParamsError, match="brings its own images"):
        compose("fast", "images")


def test_a_download_keeps_its_images_below_its_data_and_depends_on_its_manifest(project):
    Path("experiments/bucket.yaml").write_text("fetch: {source: s3, path: 's3://parts/v1', manifest: images/manifest.csv}\n")
    graph = compose("bucket", None)
    params = load(Path("experiments/bucket/params.yaml"))
    assert (params.fetch.path, params.experiment.fetched) == ("s3://parts/v1", "data/bucket/raw")
    assert yaml.safe_load(graph.read_text())["stages"]["fetch"]["deps"][-1] == "${fetch.manifest}"
