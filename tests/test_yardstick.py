"""The classical yardstick: what is learnt from, what is judged, where the threshold comes from."""

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest

from iadr1.calibration import Calibration
from iadr1.cli import main
from iadr1.errors import DatasetError, ModelError
from iadr1.report import read_predictions
from iadr1.samples import write_samples
from iadr1.yardstick import Settings, folds, predictions
from tests.tiny import tiny_backbone, tiny_samples

INSTALLED = importlib.util.find_spec("anomalib") is not None
needs_anomalib = pytest.mark.skipif(not INSTALLED, reason="anomalib is an extra: pip install 'iadr1[classical]'")


def colours(images):
    """Features that see brightness: each image on a grid of 6 x 6."""
    import torch

    return torch.stack([torch.from_numpy(np.asarray(image.resize((6, 6)), np.float32)).permute(2, 0, 1) for image in images])


def test_folds_judge_each_sample_once_and_never_by_itself(tmp_path):
    samples = tiny_samples(tmp_path, 23)
    pairs = folds(samples, seed=0)
    assert sorted(sample.id for judged, _ in pairs for sample in judged) == sorted(sample.id for sample in samples)
    for judged, learnt in pairs:
        assert not {sample.id for sample in judged} & {sample.id for sample in learnt}
        assert learnt and not any(sample.anomalous for sample in learnt)


def test_pictures_of_one_physical_sample_are_in_one_fold(tmp_path):
    samples = [replace(sample, physical=f"part {at // 4}") for at, sample in enumerate(tiny_samples(tmp_path, 24))]
    for judged, learnt in folds(samples, seed=0):
        assert not {sample.physical for sample in judged} & {sample.physical for sample in learnt}


@needs_anomalib
def test_a_dark_square_is_found_by_who_knows_only_good_plates(tmp_path):
    samples = tiny_samples(tmp_path, 40)
    told = []
    found = list(predictions(samples, [], colours, Settings(), told.append))
    assert sum(told) == len(found) == 40
    assert Calibration.of([answer.p_yes for answer in found], [answer.anomalous for answer in found]).auroc == 100
    rates = [[answer.verdict.anomalous for answer in found if answer.anomalous is truth] for truth in (True, False)]
    assert all(rates[0]) and sum(rates[1]) <= 5
    assert all((answer.p_yes > 0.5) is (answer.text == "Yes") and 0 <= answer.p_yes <= 1 for answer in found)


@needs_anomalib
def test_the_same_seed_gives_the_same_answers_and_training_normals_are_used_where_there_are_any(tmp_path):
    samples = tiny_samples(tmp_path, 16)
    normals = [sample for sample in samples[8:] if not sample.anomalous]
    first, again = (list(predictions(samples[:8], normals, colours, Settings(), lambda count: None)) for _ in range(2))
    assert first == again and len(first) == 8


@needs_anomalib
def test_a_product_with_one_good_image_cannot_be_learnt(tmp_path):
    samples = tiny_samples(tmp_path, 3)
    with pytest.raises(DatasetError, match=r"made/plate: PatchCore needs two normal images at least; found [01]\. Name a folder"):
        list(predictions(samples, [], colours, Settings(), lambda count: None))


@needs_anomalib
def test_the_command_writes_predictions_that_a_report_reads(tmp_path, capsys):
    write_samples(tmp_path / "s.jsonl", tiny_samples(tmp_path, 20))
    out = str(tmp_path / "p.jsonl")
    assert main(["yardstick", str(tmp_path / "s.jsonl"), "--output", out, "--features", str(tiny_backbone()), "--size", "96"]) == 0
    text = capsys.readouterr().out
    assert "AUROC" in text and "the vision tower of" in text and "judged in folds of the test's own: plate" in text
    assert len(read_predictions(tmp_path / "p.jsonl")) == 20
    assert main(["report", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"]["patchcore"]


@needs_anomalib
def test_normals_of_another_product_are_not_passed_over(tmp_path, capsys):
    write_samples(tmp_path / "s.jsonl", tiny_samples(tmp_path, 4))
    other = tmp_path / "set" / "cable" / "train" / "good"
    other.mkdir(parents=True)
    (tmp_path / "000.png").rename(other / "000.png")
    arguments = ["yardstick", str(tmp_path / "s.jsonl"), "--output", str(tmp_path / "p.jsonl"), "--normals", str(tmp_path / "set")]
    assert main(arguments) == 1
    assert "no normal training image of plate; found cable. Name the folder of that data set" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [("--quantile", "1.5"), ("--quantile", "0"), ("--most", "1"), ("--layout", "heap")])
def test_settings_out_of_range_are_errors_of_usage(wrong, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["yardstick", "s.jsonl", "--output", "p.jsonl", *wrong])
    assert ended.value.code == 2 and wrong[0] in capsys.readouterr().err


@needs_anomalib
@pytest.mark.parametrize(
    "name, message",
    [
        ("nowhere", r"--features nowhere: no such folder or file\. Name a model folder, a \.safetensors file"),
        ("other.safetensors", r"not the weights of resnet10t"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, monkeypatch, name, message):
    import torch
    from safetensors.torch import save_file

    from iadr1.yardstick_features import features_of

    monkeypatch.chdir(tmp_path)
    save_file({"a": torch.zeros(1)}, "other.safetensors")
    with pytest.raises(ModelError, match=message):
        features_of(name, network="resnet10t")


@needs_anomalib
def test_a_file_of_weights_gives_the_features_of_its_network(tmp_path):
    import timm
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    from iadr1.yardstick_features import features_of

    torch.manual_seed(3)
    save_file(timm.create_model("resnet10t", pretrained=False).state_dict(), tmp_path / "w.safetensors")
    image = [Image.effect_noise((64, 64), 50).convert("RGB")]
    loaded, told = features_of(str(tmp_path / "w.safetensors"), network="resnet10t", size=64)
    untrained, floor = features_of("random", network="resnet10t", size=64)
    assert loaded(image).shape == untrained(image).shape == (1, 128 + 256, 8, 8)
    assert not torch.allclose(loaded(image), untrained(image))
    assert "weights of" in told and "UNTRAINED" in floor


@pytest.mark.skipif(INSTALLED, reason="anomalib is installed")
def test_without_anomalib_the_command_says_what_to_install(tmp_path, capsys):
    write_samples(tmp_path / "s.jsonl", tiny_samples(tmp_path, 2))
    assert main(["yardstick", str(tmp_path / "s.jsonl"), "--output", str(tmp_path / "p.jsonl")]) == 1
    assert "Run `pip install 'iadr1[classical]'`" in capsys.readouterr().err
