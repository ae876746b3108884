"""Expert-AD is built from images and masks: truthful comparisons, chains in the two patterns, and the same again after any number of kills."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iadr1.cli import main
from iadr1.errors import ParamsError
from iadr1.expert_ad.build import Built, build, drafted
from iadr1.expert_ad.highlight import OUTLINE, highlighted
from iadr1.expert_ad.pairs import Pair, measures
from iadr1.expert_ad.replies import Kept
from iadr1.expert_ad.teachers import Comparison, Distilled, OfflineTeacher, Reply, Request, compared, parse
from iadr1.masks import measured
from iadr1.samples import Sample, read_samples
from iadr1.splits import physical_of
from iadr1.verdict import Verdict
from tests import layouts
from tests.stages import ROOT

DISTILLED = Distilled(
    "on the bolt, a line shows.", "a good part has none.", "it is a scratch.", "it matters.", "so it is defective.", "scratch"
)


def plate(folder: Path, name: str, *, rows: slice, columns: slice, colour: tuple[int, int, int] = (20, 20, 20)) -> Pair:
    """A light grey plate with a mark of one colour, measured."""
    pixels, mask = np.full((100, 200, 3), 190, np.uint8), np.zeros((100, 200), np.uint8)
    pixels[rows, columns], mask[rows, columns] = colour, 255
    Image.fromarray(pixels).save(folder / f"{name}.png")
    Image.fromarray(mask).save(folder / f"{name}_mask.png")
    query = Sample(
        f"made/bolt/train/x/{name}", "made", "bolt", (str(folder / f"{name}.png"),), True, type="scratch",
        mask=str(folder / f"{name}_mask.png"), references=(str(folder / f"{name}.png"),),
    )  # fmt: skip
    found = measured(query, grid=3)
    assert found
    return Pair(*found)


@pytest.mark.parametrize(
    "rows, columns, colour, area, across, down, elongation, angle, contrast, name",
    [
        (slice(0, 10), slice(0, 20), (20, 20, 20), 0.01, 0.05, 0.05, 2.0, 0, -170, "black"),
        (slice(40, 60), slice(100, 120), (205, 50, 45), 0.02, 0.55, 0.5, 1.0, None, -90, "red"),
        (slice(0, 100), slice(50, 54), (240, 240, 240), 0.02, 0.26, 0.5, 25.0, 90, 50, "white"),
    ],
)
def test_the_measures_of_a_mask_are_those_of_the_mark(
    tmp_path: Path, rows: slice, columns: slice, colour: tuple[int, int, int], area: float, across: float, down: float, elongation: float,
    angle: float | None, contrast: float, name: str,
) -> None:  # fmt: skip
    found = measures(plate(tmp_path, "a", rows=rows, columns=columns, colour=colour))
    assert (found.area, found.across, found.down) == pytest.approx((area, across, down))
    assert found.elongation == pytest.approx(elongation, rel=0.05)
    assert angle is None or found.angle == pytest.approx(angle)
    assert (found.contrast, found.colour, found.surroundings, found.pieces) == (pytest.approx(contrast), name, "light grey", 1)


@pytest.mark.parametrize(
    "pixels, course",
    [
        ([(y, 2 * y) for y in range(90)], "from the upper left to the lower right"),
        ([(99 - y, 2 * y) for y in range(90)], "from the lower left to the upper right"),
    ],
)
def test_the_course_of_a_line_is_told_as_it_is_seen(tmp_path: Path, pixels: list[tuple[int, int]], course: str) -> None:
    pair = plate(tmp_path, "a", rows=slice(0, 100), columns=slice(0, 1))
    mask = np.zeros((100, 200), np.uint8)
    for row, column in pixels:
        mask[row : row + 2, column : column + 3] = 255
    Image.fromarray(mask).save(str(pair.query.mask))
    assert course in compared(pair, measures(pair)).appearance


def test_every_figure_of_an_offline_comparison_is_measured_and_the_words_vary(tmp_path: Path) -> None:
    pair = plate(tmp_path, "a", rows=slice(0, 10), columns=slice(0, 20))
    texts = set()
    for number in range(50):
        said = compared(replace(pair, query=replace(pair.query, id=str(number))), measures(pair))
        assert "top left" in said.difference and "scratch" in said.difference
        assert "5%" in said.position and "1.0%" in said.position
        assert all(word in said.appearance for word in ("black", "light grey", "170 levels of 255 darker", "2.0 times as long as wide"))
        texts.add(str(said))
    assert len(texts) > 20


def test_without_a_reference_the_offline_teacher_speaks_of_none(tmp_path: Path) -> None:
    pair = plate(tmp_path, "a", rows=slice(0, 10), columns=slice(0, 20))
    for number in range(20):
        query = replace(pair.query, id=str(number), references=())
        for said in (compared(Pair(query), measures(pair)), compared(Pair(replace(query, anomalous=False)), None)):
            assert said.reference == "No reference is at hand." and "reference" not in said.difference


def test_the_highlight_is_around_the_defect_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    pair = plate(tmp_path, "a", rows=slice(40, 60), columns=slice(100, 120))
    (tmp_path / "h.png").write_bytes(highlighted(pair.image, str(pair.query.mask), longest=1024))
    shown, plain = np.asarray(Image.open(tmp_path / "h.png")), np.asarray(Image.open(pair.image))
    assert (shown[40:60, 100:120] == plain[40:60, 100:120]).all()
    assert tuple(shown[38, 110]) == OUTLINE and (shown[:30] == plain[:30]).all()
    (tmp_path / "s.png").write_bytes(highlighted(pair.image, str(pair.query.mask), longest=50))
    assert Image.open(tmp_path / "s.png").size == (50, 25)


@pytest.mark.parametrize(
    "text, found",
    [
        (json.dumps({name: getattr(DISTILLED, name) for name in Distilled.__slots__}), True),
        ('Sure! ```json\n{"observation":"a","comparison":"b","identification":"c","evaluation":"d","decision":"e","type":null}\n```', True),
        ('{"observation":"a","comparison":"b","identification":"c","evaluation":"d","type":"scratch"}', False),
        ('{"observation":["a"],"comparison":"b","identification":"c","evaluation":"d","decision":"e"}', False),
        ("{" * 100_000, False),
        ("[1]", False),
        ("", False),
    ],
)
def test_a_reply_is_read_whole_or_not_at_all(text: str, found: bool) -> None:
    assert (parse(Distilled, text) is not None) is found


@given(st.text(max_size=200), st.fixed_dictionaries({name: st.text(max_size=20) for name in Distilled.__slots__}), st.text(max_size=20))
@settings(max_examples=100, deadline=None)
def test_no_reply_breaks_the_reader_and_what_it_reads_it_reads_again(text: str, record: dict[str, str], around: str) -> None:
    parse(Distilled, text)
    found = parse(Distilled, f"{around.replace('{', '')}{json.dumps(record)}{around.replace('}', '')}")
    assert (found is not None) is all(" ".join(record[name].split("\n")).strip() for name in record if name != "type")
    if found is not None:
        assert parse(Distilled, json.dumps({name: getattr(found, name) for name in Distilled.__slots__})) == found


class Scripted:
    """A teacher that gives the replies of a list, and counts."""

    needs_reference = False

    def __init__(self, *replies: str) -> None:
        self.replies, self.asked = list(replies), 0

    def key(self, request: Request) -> str:
        return f"{request.step}-{request.attempt}-{request.pair.query.id.replace('/', '-')}"

    def expected(self, request: Request) -> tuple[int, int]:
        return 1, 1

    def __call__(self, request: Request) -> Reply:
        self.asked += 1
        return Reply(self.replies.pop(0))


COMPARED = json.dumps(dict.fromkeys(Comparison.__slots__, "It is so."))
CHAIN = json.dumps({name: getattr(DISTILLED, name) for name in Distilled.__slots__})


def test_garbage_is_asked_for_once_more_and_then_costs_the_row(tmp_path: Path) -> None:
    pair = plate(tmp_path, "a", rows=slice(0, 10), columns=slice(0, 20))
    assert drafted(pair, Scripted("what?", COMPARED, "{", CHAIN)).row.reasoning == DISTILLED.chain
    assert drafted(pair, Scripted("what?", "no!")).fault == "the comparison cannot be read"
    assert drafted(pair, Scripted(COMPARED, "what?", "no!")).fault == "the chain cannot be read"


def test_what_was_answered_is_not_asked_again_and_a_damaged_file_is(tmp_path: Path) -> None:
    pair = plate(tmp_path, "a", rows=slice(0, 10), columns=slice(0, 20))
    teacher = Scripted(COMPARED, CHAIN, COMPARED)
    first = drafted(pair, Kept(teacher, tmp_path / "replies"))
    assert drafted(pair, Kept(teacher, tmp_path / "replies")) == first and teacher.asked == 2
    next((tmp_path / "replies").rglob("compare*.json")).write_text('{"text": "cut')
    assert drafted(pair, Kept(teacher, tmp_path / "replies")) == first and teacher.asked == 3


def test_the_offline_teacher_answers_anew_when_pixels_or_annotation_change(tmp_path: Path) -> None:
    pair, teacher = plate(tmp_path, "a", rows=slice(0, 10), columns=slice(0, 20)), OfflineTeacher()
    before = teacher.key(Request("compare", pair))
    assert teacher.key(Request("compare", replace(pair, query=replace(pair.query, location="center")))) != before
    Image.fromarray(np.zeros((100, 200, 3), np.uint8)).save(pair.image)
    assert teacher.key(Request("compare", pair)) != before


def rows_built(folder: Path, **changes: object) -> Built:
    normal = [Sample(f"made/bolt/train/good/{number}", "made", "bolt", (f"{number}.png",), False) for number in range(6)]
    pairs = [plate(folder, str(number), rows=slice(0, 10), columns=slice(0, 20 + number)) for number in range(6)]
    known = {
        "teacher": OfflineTeacher(), "described": frozenset({"pa_sft"}), "rejecting": frozenset(), "rows": {"pa_sft": 12, "sc_grpo": 0},
        "anomalous_share": {"pa_sft": 0.5, "sc_grpo": 0.5}, "grid": 3,
    }  # fmt: skip
    regions = {pair.query.id: pair.region for pair in pairs if pair.region}
    return build({"pa_sft": [*normal, *(pair.query for pair in pairs)], "sc_grpo": []}, regions, **{**known, **changes})  # type: ignore[arg-type]


def test_rows_take_the_two_patterns(tmp_path: Path) -> None:
    rows = rows_built(tmp_path).parts["pa_sft"]
    assert len(rows) == 12
    for row in rows:
        verdict = Verdict(row.anomalous, row.location, row.type, row.reasoning)
        assert Verdict.parse(verdict.render()) == verdict and verdict.pattern == ("anomalous" if row.anomalous else "normal")


def test_where_rows_fall_out_the_share_of_defects_is_kept(tmp_path: Path) -> None:
    def decide(row_id: str, chain: str) -> str | None:
        return None if row_id in ("made/bolt/train/x/1", "made/bolt/train/x/4") else chain

    built = rows_built(tmp_path, decide=decide)
    assert built.report()["rows"]["pa_sft"] == {"normal": 4, "anomalous": 4}
    assert built.report()["rejected_by_people"] == 2
    assert rows_built(tmp_path, rows={"pa_sft": 6, "sc_grpo": 0}).report()["rows"]["pa_sft"] == {"normal": 3, "anomalous": 3}


def test_a_chain_that_people_changed_is_judged_as_changed(tmp_path: Path) -> None:
    def decide(row_id: str, chain: str) -> str | None:
        return f"{chain} this is due to the prior guidance." if row_id.endswith("x/2") else chain

    built = rows_built(tmp_path, decide=decide, rejecting=frozenset({"hint_leak"}))
    assert built.report()["gates"]["hint_leak"]["found"] == 1 and built.report()["accepted"] == 11
    assert not any(row.id.endswith("x/2") for row in built.parts["pa_sft"])


def test_a_gate_that_there_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"prepare.reject: hint_leaks is not a gate; did you mean hint_leak\?"):
        rows_built(tmp_path, rejecting=frozenset({"hint_leaks"}))


# --- the command -----------------------------------------------------------------------------------------------------------------------


def params_of(folder: Path, *, rows: int = 12) -> Path:
    import yaml

    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["prepare"] |= {
        "train": {"parts": {"layout": "mvtec", "folder": "."}},
        "pa_sft_rows": rows,
        "sc_grpo_rows": 6,
        "validation_rows": 4,
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    return folder / "params.yaml"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    layouts.parts(tmp_path / "images")
    return tmp_path / "images"


def built_into(folder: Path, images: Path, *more: str) -> int:
    params = params_of(images.parent)
    return main(["expert-ad", "build", "--params", str(params), "--images", str(images), "--into", str(folder), *more])


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def test_build_writes_balanced_parts_that_share_no_physical_sample(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert built_into(tmp_path / "out", images) == 0
    parts = {part: read_samples(tmp_path / "out" / f"{part}.jsonl") for part in ("pa_sft", "sc_grpo", "validation")}
    assert {part: (len(rows), sum(row.anomalous for row in rows)) for part, rows in parts.items()} == {
        "pa_sft": (12, 6), "sc_grpo": (6, 3), "validation": (4, 2),
    }  # fmt: skip
    assert len({physical_of(row) for rows in parts.values() for row in rows}) == 22
    assert all(row.reasoning for row in (*parts["pa_sft"], *parts["validation"])) and not any(row.reasoning for row in parts["sc_grpo"])
    assert "16 of 16 chains accepted" in capsys.readouterr().out


def test_an_estimate_builds_nothing(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert built_into(tmp_path / "out", images, "--estimate") == 0
    assert "16 pairs to describe; still to be asked: about 32 requests" in capsys.readouterr().out
    assert outputs(tmp_path / "out") == {}


def test_building_again_asks_nothing_and_gives_the_same_bytes(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built_into(tmp_path / "out", images)
    before = outputs(tmp_path / "out")
    capsys.readouterr()
    assert built_into(tmp_path / "out", images) == 0
    assert outputs(tmp_path / "out") == before and "about 0 requests" in capsys.readouterr().out


def test_rows_that_nobody_reviewed_can_be_left_out(images: Path, tmp_path: Path) -> None:
    assert built_into(tmp_path / "out", images, "--reviewed-only") == 0
    assert read_samples(tmp_path / "out" / "pa_sft.jsonl") == []


def test_a_budget_stops_before_anything_is_asked(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("IADR1_TEACHER_URL", "http://127.0.0.1:9/v1")
    assert built_into(tmp_path / "out", images, "--teacher", "qwen", "--price", "100", "100", "--budget", "0.01") == 1
    assert "is more than the budget of 0.01. Raise it, or build fewer rows." in capsys.readouterr().err
    assert not (tmp_path / "out" / "replies").exists()


def test_a_teacher_without_an_address_is_named(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.delenv("IADR1_TEACHER_URL", raising=False)
    assert built_into(tmp_path / "out", images, "--teacher", "qwen") == 1
    assert "the teacher qwen needs the address of its endpoint in $IADR1_TEACHER_URL" in capsys.readouterr().err
