"""Boxes, polygons and run lengths become masks that mark what they enclose."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iadr1.datasets import class_of, samples_of
from iadr1.datasets.shapes import Marked, draw_masks, drawn, run_lengths
from iadr1.errors import DatasetError
from iadr1.masks import read_mask
from tests import layouts
from tests.layouts import picture


def spans(mask: np.ndarray) -> tuple[int, int, int, int, int]:
    """Left, top, right and bottom (exclusive) of what a mask marks, and how many pixels."""
    ys, xs = np.nonzero(mask)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1, int(mask.astype(bool).sum())


def test_coco_shapes_are_drawn_where_they_are(tmp_path: Path) -> None:
    layouts.coco(tmp_path)
    found = {sample.id.rpartition("/")[2]: sample for sample in samples_of("coco", tmp_path, "x")}
    assert {name: class_of(sample) for name, sample in found.items()} == {"box": "scratch", "two": "mixed", "none": "good", "runs": "hole"}
    assert (found["box"].type, found["two"].type) == ("scratch", None)
    left, top, right, bottom, _ = spans(read_mask(str(found["box"].mask)))
    assert abs(left - 2) <= 1 and abs(top - 3) <= 1 and abs(right - 6) <= 1 and abs(bottom - 8) <= 1
    assert spans(read_mask(str(found["runs"].mask))) == (1, 2, 2, 6, 4)
    assert read_mask(str(found["two"].mask))[12, 12] and read_mask(str(found["two"].mask))[3, 3]


def test_yolo_boxes_and_polygons_are_drawn_where_they_are(tmp_path: Path) -> None:
    layouts.yolo(tmp_path)
    found = {sample.id.rpartition("/")[2]: sample for sample in samples_of("yolo", tmp_path, "x")}
    assert {name: class_of(sample) for name, sample in found.items()} == {"a": "scratch", "b": "good", "c": "hole"}
    left, top, right, bottom, _ = spans(read_mask(str(found["a"].mask)))
    assert abs(left - 3) <= 1 and abs(top - 0) <= 1 and abs(right - 9) <= 1 and abs(bottom - 12) <= 1
    assert spans(read_mask(str(found["c"].mask)))[:2] >= (11, 11)


def test_masks_that_are_not_drawn_yet_are_asked_for(tmp_path: Path) -> None:
    layouts.yolo(tmp_path)
    (tmp_path / "masks/images/train/a.png").unlink()
    with pytest.raises(DatasetError, match=r"no mask for defective images(.|\n)*Draw them: `iadr1 data masks FOLDER`"):
        samples_of("yolo", tmp_path, "x")


def test_a_shape_is_drawn_in_the_frame_of_the_upright_picture(tmp_path: Path) -> None:
    turned = Image.fromarray(np.zeros((20, 40, 3), np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "a.jpg", exif=exif)
    assert drawn(Marked(tmp_path / "a.jpg", "test", ("hole",), ((0, 0, 20, 0, 20, 40, 0, 40),))).shape == (40, 20)


@given(st.integers(1, 12), st.integers(1, 12), st.data())
@settings(deadline=None)
def test_a_box_marks_its_pixels(tmp_path_factory: pytest.TempPathFactory, width: int, height: int, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("b") / "a.png"
    Image.new("L", (24, 24)).save(path)
    x, y = data.draw(st.integers(0, 24 - width)), data.draw(st.integers(0, 24 - height))
    marked = drawn(Marked(path, "test", ("hole",), ((x, y, x + width, y, x + width, y + height, x, y + height),)))
    left, top, right, bottom, count = spans(marked)
    assert x - 1 <= left <= x and y - 1 <= top <= y and x + width <= right + 1 and y + height <= bottom + 1
    assert count >= width * height


def test_compressed_run_lengths_are_read() -> None:
    assert run_lengths("61X13mN000`0") == [6, 1, 40, 4, 5, 4, 5, 4, 21]


def encoded(counts: list[int]) -> str:
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text


@given(st.lists(st.integers(0, 1 << 24)))
def test_run_lengths_survive_compression(counts: list[int]) -> None:
    assert run_lengths(encoded(counts)) == counts


@pytest.mark.parametrize(
    "line, message",
    [("0 0.5 0.5", r"a.txt: a line is a class and 4 numbers"), ("hole 1 1 1 1", "a line is a class"), ("0 5 5 .1 .1", "marks nothing")],
)
def test_a_broken_yolo_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    picture(tmp_path / "images/train/a.png")
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/a.txt").write_text(line)
    with pytest.raises(DatasetError, match=message):
        draw_masks(tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        ([], "COCO's JSON has images, annotations and categories"),
        ({"images": [{"id": 1}], "annotations": [], "categories": []}, "lacks or has a wrong 'file_name'"),
        ({"images": [{"id": 1, "file_name": "../a.png"}], "annotations": [], "categories": []}, "which is outside of it"),
    ],
)
def test_a_broken_coco_json_is_named(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/a.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=message):
        samples_of("coco", tmp_path, "x")


def test_a_folder_without_annotations_has_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no annotated images"):
        draw_masks(tmp_path)
