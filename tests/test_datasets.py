"""Every layout is read into samples; labels come from annotations and from the layout; each fault is named."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iadr1.datasets import LAYOUTS, samples_of, split_of, with_references
from iadr1.errors import DatasetError
from iadr1.masks import measured, read_image, read_mask
from iadr1.samples import Sample
from tests import layouts
from tests.layouts import mask, picture, table

NATIVE = {
    "real_iad": (layouts.real_iad, {("train", False): 2, ("test", True): 2}),
    "mvtec": (layouts.mvtec, {("train", False): 2, ("train", True): 1, ("test", False): 1, ("test", True): 1}),
    "ds_mvtec": (layouts.ds_mvtec, {("train", False): 1, ("test", False): 1, ("test", True): 1}),
    "visa": (layouts.visa, {("train", False): 1, ("test", False): 1, ("test", True): 1}),
    "mpdd": (layouts.mvtec, {("train", False): 2, ("train", True): 1, ("test", False): 1, ("test", True): 1}),
    "dagm": (layouts.dagm, {("train", False): 1, ("train", True): 1, ("test", False): 1, ("test", True): 1}),
    "dtd": (layouts.dtd, {("train", False): 1, ("test", False): 1, ("test", True): 1}),
    "sdd": (layouts.sdd, {("test", False): 2, ("test", True): 1}),
    "sdd2": (layouts.sdd2, {("train", False): 1, ("train", True): 1, ("test", False): 1, ("test", True): 1}),
    "btad": (layouts.btad, {("train", False): 1, ("test", False): 1, ("test", True): 1}),
    "coco": (layouts.coco, {("train", False): 1, ("train", True): 2, ("test", True): 1}),
    "yolo": (layouts.yolo, {("train", False): 1, ("train", True): 1, ("test", True): 1}),
}
REARRANGED = {
    "visa": (layouts.visa_folders, {("train", False): 1, ("test", False): 1, ("test", True): 1}),
    "dagm": (layouts.dagm_rearranged, {("test", False): 1, ("test", True): 1}),
    "sdd": (layouts.sdd_rearranged, {("test", False): 1, ("test", True): 1}),
    "yolo": (layouts.yolo_by_split, {("train", False): 1, ("test", True): 1}),
}


def test_every_layout_has_a_fixture() -> None:
    assert NATIVE.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("layout, made", [*NATIVE.items(), *REARRANGED.items()])
def test_a_layout_is_read_with_its_splits_and_labels(tmp_path: Path, layout: str, made: tuple) -> None:  # type: ignore[type-arg]
    write, expected = made
    write(tmp_path / "data")
    samples = samples_of(layout, tmp_path / "data", "x")
    assert Counter((split_of(sample), sample.anomalous) for sample in samples) == expected
    assert all(Path(sample.images[-1]).is_file() and (sample.mask is None or Path(sample.mask).is_file()) for sample in samples)
    assert all(
        len(sample.id.split("/")) == 5 and sample.dataset == "x" and sample.id.startswith(f"x/{sample.category}/") for sample in samples
    )
    assert all((sample.mask is None and sample.type is None) for sample in samples if not sample.anomalous)


@pytest.mark.parametrize("layout", NATIVE)
def test_every_defect_of_a_native_layout_has_its_mask(tmp_path: Path, layout: str) -> None:
    NATIVE[layout][0](tmp_path)
    assert all(sample.mask for sample in samples_of(layout, tmp_path, "x") if sample.anomalous)


def test_the_word_good_elsewhere_in_a_path_means_nothing(tmp_path: Path) -> None:
    layouts.mvtec(tmp_path / "good" / "data")
    samples = {sample.id: sample for sample in samples_of("mvtec", tmp_path / "good" / "data", "x")}
    assert samples["x/goods_bottle/test/scratch/000"].anomalous
    assert not samples["x/goods_bottle/test/good/000"].anomalous


def test_types_come_from_folders_and_annotations(tmp_path: Path) -> None:
    for layout in ("real_iad", "mvtec", "ds_mvtec", "visa"):
        NATIVE[layout][0](tmp_path / layout)
        types = {sample.type for sample in samples_of(layout, tmp_path / layout, "x") if sample.anomalous}
        assert "scratch" in {str(word).lower() for word in types}, layout


def test_a_folder_that_says_nothing_of_the_type_gives_none(tmp_path: Path) -> None:
    layouts.dtd(tmp_path)
    assert [sample.type for sample in samples_of("dtd", tmp_path, "x") if sample.anomalous] == [None]


def test_a_category_folder_can_be_given_itself(tmp_path: Path) -> None:
    layouts.mvtec(tmp_path)
    assert {sample.category for sample in samples_of("mvtec", tmp_path / "goods_bottle", "x")} == {"goods_bottle"}


def test_views_of_one_part_are_one_physical_sample(tmp_path: Path) -> None:
    layouts.real_iad(tmp_path / "r")
    layouts.sdd(tmp_path / "s")
    assert Counter(sample.physical for sample in samples_of("real_iad", tmp_path / "r", "x")) == {
        "x/bolt/OK/S0001": 2,
        "x/bolt/NG/scratch/S0002": 2,
    }
    assert Counter(sample.physical for sample in samples_of("sdd", tmp_path / "s", "x")) == {"x/kos01": 2, "x/kos02": 1}


def test_a_manifest_beside_the_data_names_the_physical_samples(tmp_path: Path) -> None:
    layouts.mvtec(tmp_path / "set")
    table(
        tmp_path / "manifest.csv", ["path", "group"],
        ["set/goods_bottle/train/good/000.png", "plate7"], ["set/goods_bottle/train_defect/hole/007.png", "plate7"],
        ["set/goods_bottle/train/good/001.png", "unknown"],
    )  # fmt: skip
    physical = {sample.id: sample.physical for sample in samples_of("mvtec", tmp_path / "set", "set")}
    assert physical["set/goods_bottle/train/good/000"] == physical["set/goods_bottle/train/hole/007"] == "set/plate7"
    assert physical["set/goods_bottle/train/good/001"] is None


def test_references_are_other_normal_images_of_the_category() -> None:
    def one(name: str, category: str = "a", **changes: object) -> Sample:
        return Sample(
            id=f"x/{category}/train/good/{name}", dataset="x", category=category, images=(f"{name}.png",), anomalous=False, **changes
        )  # type: ignore[arg-type]

    pool = [one("0", physical="p"), *(one(str(number)) for number in range(1, 9)), one("b", category="b")]
    chosen = with_references(one("1", physical="p"), pool).references
    assert len(chosen) == 4 and not {"0.png", "1.png", "b.png"} & set(chosen)
    assert chosen == with_references(one("1", physical="p"), pool).references
    assert with_references(one("z", category="none"), pool).references == ()


def test_masks_and_images_of_any_mode_are_read(tmp_path: Path) -> None:
    bits = np.zeros((8, 8), bool)
    bits[2:4, 2:4] = True
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"):
        source = Image.fromarray(bits.astype(np.uint8)) if mode == "P" else Image.fromarray(bits.astype(np.uint8) * 255)
        image = source.convert("I").convert(mode) if mode == "I;16" else source.convert(mode)
        image.save(tmp_path / "m.png")
        assert (read_mask(tmp_path / "m.png") == bits).all(), mode
        assert read_image(tmp_path / "m.png").shape == (8, 8, 3), mode


def test_a_mask_gives_location_and_visibility(tmp_path: Path) -> None:
    sample = Sample("x/a/test/b/0", "x", "a", (str(picture(tmp_path / "i.png", grey=120)),), True, mask=str(mask(tmp_path / "m.png")))
    result = measured(sample, grid=3)
    assert result is not None and result[0].location == "top left" and result[0].visibility == 0.0 and result[1].tone == "faint"


def test_an_empty_mask_measures_nothing(tmp_path: Path) -> None:
    sample = Sample("x/a/test/b/0", "x", "a", (str(picture(tmp_path / "i.png")),), True, mask=str(mask(tmp_path / "m.png", empty=True)))
    assert measured(sample, grid=3) is None


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    sample = Sample("x/a/test/b/0", "x", "a", (str(picture(tmp_path / "i.png")),), True, mask=str(mask(tmp_path / "m.png", side=30)))
    with pytest.raises(DatasetError, match=r"m.png: 30x30 pixels, but its image .*i.png has 24x24; both must have the same size"):
        measured(sample, grid=3)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_a_broken_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(DatasetError, match=r"broken.png: cannot be read as an image .* Replace or remove it"):
        read_image(tmp_path / "broken.png")


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    whole = picture(tmp_path / "cut.png", side=200)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(whole)
    whole.write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(DatasetError, match=r"cut.png: cannot be read as an image"):
        read_image(whole)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"x: no folder .*nowhere. Run `dvc repro fetch`, or correct the folder"):
        samples_of("mvtec", tmp_path / "nowhere", "x")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_folder_is_refused_with_what_the_layout_expects(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DatasetError, match=rf"x: no images in .* where layout {layout} expects them"):
        samples_of(layout, tmp_path, "x")


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="layout 'mvtek' is not known; known are real_iad, mvtec"):
        samples_of("mvtek", tmp_path, "x")


def test_defects_without_their_mask_are_all_named(tmp_path: Path) -> None:
    layouts.mvtec(tmp_path)
    for number in range(1, 31):
        picture(tmp_path / f"goods_bottle/test/scratch/{number:03}.png")
    with pytest.raises(
        DatasetError, match=r"x: no mask for defective images \(30\)(.|\n)*001.png; expected .*001_mask.png(.|\n)*and 10 more\nAdd"
    ):
        samples_of("mvtec", tmp_path, "x")


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    layouts.mvtec(tmp_path)
    picture(tmp_path / "goods_bottle/train/good/000.jpg")
    with pytest.raises(DatasetError, match=r"same name but for the ending \(1\):\n  x/goods_bottle/train/good/000"):
        samples_of("mvtec", tmp_path, "x")


def test_files_that_an_annotation_names_must_be_there(tmp_path: Path) -> None:
    layouts.real_iad(tmp_path)
    (tmp_path / "bolt/OK/S0001/bolt_C1.png").unlink()
    with pytest.raises(
        DatasetError, match=r"files that its annotation names are missing \(1\):\n  .*S0001/bolt_C1.png\nComplete the download"
    ):
        samples_of("real_iad", tmp_path, "x")


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "not JSON"),
        ("[]", "has meta .with normal_class., train and test"),
        ('{"meta": {"normal_class": "OK"}, "train": [{"image_path": "a"}], "test": []}', "has no 'category'; found"),
        (
            '{"meta": {"normal_class": "OK"}, "train": [{"category": "a", "anomaly_class": "OK", "image_path": "../x.png"}], "test": []}',
            "which is outside of it",
        ),
    ],
)
def test_a_broken_real_iad_json_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "realiad_jsons").mkdir()
    (tmp_path / "realiad_jsons" / "bolt.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        samples_of("real_iad", tmp_path, "x")


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    table(tmp_path / "split_csv/1cls.csv", ["object", "image"])
    with pytest.raises(DatasetError, match="needs the columns object, split, label, image, mask; found object, image"):
        samples_of("visa", tmp_path, "x")


def test_listing_does_not_open_images(tmp_path: Path) -> None:
    folder = tmp_path / "bolt/train/good"
    folder.mkdir(parents=True)
    for number in range(5000):
        (folder / f"{number}.png").touch()  # 0 bytes: opening one would fail
    assert len(samples_of("mvtec", tmp_path, "x")) == 5000
