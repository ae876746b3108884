"""Bad input meets the stages and commands as they are: what cannot be used is refused with its file and the reason, the rest is handled."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iadr1.cli import main
from iadr1.errors import DatasetError
from tasks.fetch import fetched
from tasks.prepare import prepared
from tasks.validate import refuse_errors, validated
from tests import layouts
from tests.stages import of_folder
from tests.test_audit import png_of

GOOD = "bolt/test/good"
TRAIN = "bolt/train/good"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sound images of a user's, of which every one is used."""
    layouts.parts(tmp_path / "images", normal=10, defects=10)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "images"


def through_the_stages(folder: Path) -> dict[str, Any]:
    """The report of fetch, prepare and validate; raises DatasetError where one of them refuses."""
    params, work = of_folder(folder)
    fetched(params, work)
    prepared(params, work)
    report = validated(params, work)
    refuse_errors(report, work)
    return report


def cut(path: Path) -> None:
    layouts.picture(path, side=200)
    path.write_bytes(path.read_bytes()[:5000])


def animated(path: Path) -> None:
    noise = layouts.picture(path, side=40)
    with Image.open(noise) as image:
        image.copy().save(path, save_all=True, append_images=[image.rotate(90)])


def in_mode(mode: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with Image.open(layouts.picture(path)) as image:
            picture = image.convert(mode)
        picture.save(path, format="JPEG" if mode == "CMYK" else "PNG")

    return write


def deep(path: Path) -> None:
    with Image.open(layouts.picture(path)) as image:
        grey = np.asarray(image.convert("L"), np.uint16)
    Image.fromarray(grey * 257).save(path)


def turned(path: Path) -> None:
    with Image.open(layouts.picture(path)) as image:
        tags = image.getexif()
        tags[0x0112] = 6
        image.copy().save(path, format="JPEG", exif=tags)


def linked(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere.png"))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as an image (cannot identify image file"),
    "corrupt": (lambda path: path.write_bytes(b"no image"), "cannot be read as an image (cannot identify image file"),
    "truncated": (cut, "cannot be read as an image (image file is truncated"),
    "animated": (animated, "holds 2 pictures, and which of them shows the part is not known. Save that one alone."),
    "enormous": (
        lambda path: path.write_bytes(png_of(50_000, 50_000)),
        "cannot be read as an image (Image size (2500000000 pixels) exceeds limit",
    ),
    "blank": (lambda path: layouts.picture(path, grey=0), "every pixel is the same"),
}
UNUSUAL: dict[str, Callable[[Path], object]] = {
    "deep": deep,
    "cmyk": in_mode("CMYK"),
    "alpha": in_mode("RGBA"),
    "palette": in_mode("P"),
    "grey": in_mode("L"),
    "turned": turned,
    "Prüfling 部品": layouts.picture,
    "n" * 200: layouts.picture,
}


def test_every_image_that_cannot_be_used_is_named_before_training_and_unusual_ones_are_not(folder: Path) -> None:
    for name, (write, _) in REFUSED.items():
        write(folder / GOOD / f"{name}.png")
    for name, plant in UNUSUAL.items():
        plant(folder / GOOD / f"{name}.png")
    with pytest.raises(DatasetError, match="the data is not fit to train on") as refused:
        through_the_stages(folder)
    named = [line for line in str(refused.value).splitlines() if line.startswith("  parts/")]
    assert len(named) == len(REFUSED)
    for name, (_, reason) in REFUSED.items():
        assert any(f"good/{name}.png: {reason}" in line for line in named), name


def test_unusual_images_alone_pass_in_a_folder_however_deep(folder: Path) -> None:
    for name, plant in UNUSUAL.items():
        plant(folder / GOOD / f"{name}.png")
        plant(folder / TRAIN / f"train {name}.png")
    deepest = folder.parent.joinpath(*["d" * 100] * 4)
    deepest.parent.mkdir(parents=True)
    folder.rename(deepest)
    assert through_the_stages(deepest)["passed"]


def mask_of_another_size(folder: Path) -> None:
    layouts.mask(folder / "bolt/ground_truth/hole/001_mask.png", side=30)


def mask_of_a_turned_picture(folder: Path) -> None:
    """As the file has it, while the picture is shown upright."""
    with Image.open(folder / "bolt/test/hole/001.png") as image:
        tags = image.getexif()
        tags[0x0112] = 6
        image.resize((40, 20)).save(folder / "bolt/test/hole/001.png", exif=tags)
    Image.fromarray(np.eye(20, 40, dtype=np.uint8) * 255).save(folder / "bolt/ground_truth/hole/001_mask.png")


def empty_mask(folder: Path) -> None:
    layouts.mask(folder / "bolt/ground_truth/hole/001_mask.png", empty=True)


def mask_of_no_bytes(folder: Path) -> None:
    (folder / "bolt/ground_truth/hole/001_mask.png").write_bytes(b"")


def enormous_mask(folder: Path) -> None:
    (folder / "bolt/ground_truth/hole/001_mask.png").write_bytes(png_of(50_000, 50_000))


def two_of_one_name(folder: Path) -> None:
    layouts.picture(folder / GOOD / "000.jpg")


def name_that_is_not_utf_8(folder: Path) -> None:
    (folder / GOOD / "000.png").rename(folder / GOOD / os.fsdecode(b"pi\xe8ce.png"))


@pytest.mark.parametrize(
    "plant, message",
    [
        (mask_of_another_size, r"001_mask.png: 30x30 pixels, but its image .*hole/001.png has 24x24; both must have the same size"),
        (mask_of_a_turned_picture, r"001_mask.png: 40x20 pixels, but its image .*hole/001.png has 20x40"),
        (empty_mask, r"masks of defective images that mark nothing \(1\):\n  .*001_mask.png\nCorrect the masks"),
        (mask_of_no_bytes, r"001_mask.png: cannot be read as an image"),
        (enormous_mask, r"001_mask.png: cannot be read as an image .*2500000000 pixels\) exceeds limit"),
        (two_of_one_name, r"two images have the same name but for the ending \(1\):\n  parts/bolt/test/good/000\nRename or remove"),
        (name_that_is_not_utf_8, r"fetch.path: names that are not UTF-8 \(1\):\n  .*good/pi\\udce8ce.png'\nRename them"),
        (lambda folder: linked(folder / GOOD / "gone.png"), r"fetch.path: files that cannot be read \(1\):\n  .*gone.png: No such file"),
    ],
)
def test_what_stands_in_the_way_of_preparing_is_named(folder: Path, plant: Callable[[Path], object], message: str) -> None:
    plant(folder)
    with pytest.raises(DatasetError, match=message):
        through_the_stages(folder)


def test_every_value_but_0_of_a_mask_is_a_defect(folder: Path) -> None:
    grey = np.zeros((24, 24), np.uint8)
    grey[18:22, 18:22] = np.arange(1, 17).reshape(4, 4)
    Image.fromarray(grey).save(folder / "bolt/ground_truth/hole/001_mask.png")
    through_the_stages(folder)
    rows = [json.loads(line) for line in Path("data/prepared/test/parts.jsonl").read_text().splitlines()]
    assert [row["location"] for row in rows if row["id"].endswith("hole/001")] == ["bottom right"]


def test_a_circle_of_links_ends(folder: Path) -> None:
    (folder / "bolt" / "again").symlink_to(folder)
    (folder / "bolt" / "self").symlink_to(folder / "bolt" / "self")
    assert through_the_stages(folder)["passed"]


# --- annotations -----------------------------------------------------------------------------------------------------------------------


def real_iad_of(image: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        layouts.real_iad(root)
        entry = {"category": "bolt", "anomaly_class": "OK", "image_path": image, "mask_path": None}
        content = {"meta": {"normal_class": "OK", "prefix": "bolt/"}, "train": [entry], "test": []}
        (root / "realiad_jsons/bolt.json").write_text(json.dumps(content))

    return plant


def enormous_json(root: Path) -> None:
    layouts.real_iad(root)
    os.truncate(root / "realiad_jsons/bolt.json", 1 << 30)  # takes no room on the disk


def table_without_labels(root: Path) -> None:
    layouts.visa(root)
    layouts.table(root / "split_csv/1cls.csv", ["object", "split", "image", "mask"], ["candle", "train", "a.jpg", ""])


def table_that_leaves(root: Path) -> None:
    layouts.visa(root)
    layouts.table(
        root / "split_csv/1cls.csv", ["object", "split", "label", "image", "mask"], ["candle", "test", "normal", "/etc/a.png", ""]
    )


def labels_of_another_encoding(root: Path) -> None:
    layouts.dagm(root)
    (root / "Class1/Train/Label/Labels.txt").write_bytes(b"1\n1\t0\tpi\xe8ce.PNG\t0\t0\n")


@pytest.mark.parametrize(
    "layout, plant, message",
    [
        ("real_iad", enormous_json, r"bolt.json: 1024 MB of JSON; at most 512 are read. Divide it by category."),
        ("real_iad", real_iad_of("../../secret.png"), r"its annotation names .*secret.png, which is outside of it"),
        ("real_iad", real_iad_of("/etc/a.png"), r"its annotation names .*/etc/a.png, which is outside of it"),
        ("visa", table_without_labels, r"1cls.csv: needs the columns object, split, label, image, mask; found object, split, image, mask"),
        ("visa", table_that_leaves, r"its annotation names /etc/a.png, which is outside of it"),
        ("dagm", labels_of_another_encoding, r"Labels.txt: not a text in UTF-8"),
    ],
)
def test_an_unfit_annotation_is_refused_by_prepare_and_named_by_the_audit(
    folder: Path, capsys: pytest.CaptureFixture[str], layout: str, plant: Callable[[Path], None], message: str
) -> None:
    plant(folder / "set")
    with pytest.raises(DatasetError, match=message):
        prepared(*of_folder(folder, train={"set": {"layout": layout, "folder": "set"}}))
    assert main(["data", "audit", "--layout", layout, str(folder / "set")]) == 1
    assert capsys.readouterr().out.startswith("error ")


def test_a_list_of_1_gb_is_not_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "meta.json").touch()
    os.truncate(tmp_path / "meta.json", 1 << 30)
    assert main(["data", "convert", str(tmp_path / "meta.json"), str(tmp_path / "out.jsonl"), "--from", "meta", "--to", "samples"]) == 1
    assert "meta.json: 1024 MB of JSON; at most 512 are read." in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
