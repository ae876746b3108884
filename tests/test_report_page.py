"""The report as a page: it holds every answer, counts as the tables do, runs nothing that it was given, and asks for nothing."""

import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iadr1.calibration import Calibration
from iadr1.cli import main
from iadr1.comparison import Comparison
from iadr1.errors import ReportError
from iadr1.report import EvalReport, Prediction, write_predictions
from iadr1.report_page import Evaluation, charts, figures, page, read_log
from iadr1.report_page.cards import gallery, kinds
from iadr1.report_page.pictures import LIMIT, SIDE, pictures, thumbnail
from iadr1.samples import Sample, write_samples

YES = "<think>A line & a <b>mark</b>.</think><location>top left</location><type>scratch</type><answer>Yes</answer>"
NO = "<think>Even.</think><answer>No</answer>"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"
MODELS = ("base", "pa_sft", "sc_grpo")
LOG = [{"step": float(step), "reward": step / 9, "rewards/accuracy": 0.5, "completion_length": 40.0 + step} for step in range(1, 9)]


def answers(count: int, *, dataset: str = "mvtec", models: tuple[str, ...] = MODELS, seed: int = 0) -> list[Prediction]:
    """Every second image is defective; what a model says is drawn, and later models are right more often."""
    rng = np.random.default_rng(seed)
    return [answer(rng, number, model, skill, dataset) for skill, model in enumerate(models) for number in range(count)]


def answer(rng: np.random.Generator, number: int, model: str, skill: int, dataset: str) -> Prediction:
    defect = number % 2 == 1
    says = defect if rng.random() < 0.5 + 0.2 * skill else not defect
    wrong_place = YES.replace("top left", "bottom right")
    said = {"base": ["Yes.", "No."]}.get(model, [str(rng.choice([YES, wrong_place, YES.replace("scratch", "stain")])), NO])
    text = "maybe" if rng.random() < 0.05 else said[0 if says else 1]
    known = {"location": "top left", "type": "scratch"} if defect else {}
    return Prediction(
        f"{dataset}/{number:04}", dataset, f"part{number % 3}", model, defect, text, tokens=len(text) // 4,
        reader="free" if model == "base" else "tags", visibility=0.1 if defect else None, **known,
    )  # fmt: skip


def drawn(folder: Path, predictions: list[Prediction], *, side: int = 64) -> list[Sample]:
    """Samples of predictions with images and masks; the images repeat after sixteen."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(16):
        Image.fromarray(np.random.default_rng(number).integers(90, 160, (side, side, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    mask = np.zeros((side, side), dtype=np.uint8)
    mask[4:12, 4:12] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    first = {each.sample_id: each for each in predictions}
    return [
        Sample(each.sample_id, each.dataset, each.category, (str(folder / f"{at % 16}.png"),), each.anomalous, each.location, each.type,
               mask=str(folder / "mask.png") if each.anomalous else None)
        for at, each in enumerate(first.values())
    ]  # fmt: skip


def data_of(html: str) -> dict:
    return json.loads(html.partition('<script type="application/json" id="data">')[2].partition("</script>")[0])


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_every_answer_is_on_the_page_once():
    predictions = answers(40) + answers(30, dataset="visa")
    cards = data_of(page(Evaluation(predictions)))["cards"]
    shown = Counter((card["id"], MODELS[each["model"]], each["says"]) for card in cards for each in card["answers"])
    assert shown == Counter((each.sample_id, each.model, each.verdict.anomalous) for each in predictions)


def test_the_words_of_an_answer_are_there_whenever_its_parts_do_not_say_them():
    texts = [YES, NO, f"{NO} and more", "<THINK>x</THINK><answer>no</answer>", "nothing", ""]
    predictions = [Prediction(str(at), "d", "c", "sc_grpo", False, text) for at, text in enumerate(texts)]
    kept = [card["answers"][0].get("text") for card in gallery(predictions, (), ["sc_grpo"], grid=3).cards]
    assert kept == [None, None, *texts[2:]]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_the_kinds_of_error_are_counted_as_the_report_counts_them(seed, grid):
    predictions = answers(24, seed=seed)
    for name, model in EvalReport.of(predictions, grid=grid).models.items():
        tally = model.datasets["mvtec"].tally
        found = Counter(kind for each in predictions if each.model == name for kind in kinds(each, each.verdict, grid=grid))
        assert found["miss"] == tally.anomalous - tally.true_anomalous - tally.unreadable_anomalous
        assert found["false_alarm"] == tally.alarms
        assert found["unreadable"] == tally.unreadable_anomalous + tally.unreadable_normal
        assert found["wrong_place"] == tally.location_scored - tally.location_right
        assert found["wrong_type"] == tally.type_scored - tally.type_right


def test_the_tables_say_what_the_report_says():
    predictions = answers(60)
    html = page(Evaluation(predictions, compared=[("base", "sc_grpo")]))
    row = EvalReport.of(predictions).to_dict()["models"]["sc_grpo"]["datasets"]["mvtec"]
    compared = Comparison.of(predictions, "base", "sc_grpo").to_dict()["datasets"]["mvtec"]
    assert f"{row['balanced_accuracy']:.1f}" in html and f"{row['tpr']:.1f} / {row['tnr']:.1f}" in html
    assert f'status=fixed&amp;dataset=mvtec">{compared["only_second"]}</a>' in html
    assert f'status=broken&amp;dataset=mvtec">{compared["only_first"]}</a>' in html
    assert "PA-SFT against Base" not in html


def test_what_it_was_given_stays_text():
    hostile = [
        replace(
            each,
            text=HOSTILE,
            category=HOSTILE,
            sample_id=f"{HOSTILE}{at}",
            dataset=f"a&b{HOSTILE}",
            type=HOSTILE if each.anomalous else None,
        )
        for at, each in enumerate(answers(4, models=("sc_grpo",)))
    ]
    html = page(Evaluation([*hostile, replace(hostile[0], model=HOSTILE)], facts={HOSTILE: HOSTILE}, title=HOSTILE, logs={HOSTILE: LOG}))
    tags = Tags(html).found
    assert [name for name, _ in tags].count("script") == 2
    assert not [name for name, attributes in tags if name == "img" or any(key.startswith("on") for key in attributes)]
    assert "{{ 7 * 7 }}" in html
    cards = data_of(html)["cards"]
    assert {card["dataset"] for card in cards} == {f"a&b{HOSTILE}"} and cards[0]["answers"][0]["text"] == HOSTILE


def test_nothing_is_asked_for_from_outside(tmp_path):
    predictions = answers(12)
    html = page(Evaluation(predictions, drawn(tmp_path, predictions), backbone="Qwen2-VL-2B", logs={"SC-GRPO": LOG}))
    assert not re.findall(r"https?://|//[a-z]|@import|url\(", html.partition('id="data"')[0])
    outside = [
        value for _, attributes in Tags(html).found for key, value in attributes.items() if key in ("src", "href") and value[:1] != "#"
    ]
    assert outside == ["data:,"]
    assert "default-src &#39;none&#39;" in html or "default-src 'none'" in html
    assert all(card["picture"]["url"].startswith("data:image/webp;base64,") for card in data_of(html)["cards"])


def test_the_tags_of_a_page_nest():
    predictions = answers(12)
    assert Tags(page(Evaluation(predictions, backbone="Qwen2-VL-2B", logs={"SC-GRPO": LOG}))).open == []


def test_the_same_predictions_make_the_same_page():
    predictions = answers(20)
    assert page(Evaluation(predictions)) == page(Evaluation(predictions[::-1]))


def test_a_page_needs_little_to_be_made():
    for predictions in ([Prediction("1", "d", "c", "m", True, "Yes")], [Prediction("1", "d", "c", "m", False, "", reader="free")]):
        html = page(Evaluation(predictions))
        assert len(data_of(html)["cards"]) == 1
        assert "no sample or no readable image" in html


def test_models_that_saw_other_images_are_not_compared():
    predictions = answers(10, models=("base",)) + answers(10, models=("sc_grpo",), dataset="visa")
    assert "Compared on the same images" not in page(Evaluation(predictions))


def test_seeds_stand_beside_one_another_and_an_image_counts_once():
    predictions = [replace(each, seed=seed) for seed in (0, 1) for each in answers(10, models=("sc_grpo",), seed=seed)]
    html = page(Evaluation(predictions))
    assert [len(card["answers"]) for card in data_of(html)["cards"]] == [2] * 10
    assert "10 images, 20 answers" in html


def test_published_figures_are_flagged_only_where_they_measure_the_same():
    predictions = answers(200)
    fair = page(Evaluation(predictions, backbone="LLaVA-OneVision-SI-0.5B"))
    made = page(Evaluation(predictions, backbone="LLaVA-OneVision-SI-0.5B", incomparable="These images are made."))
    assert re.search(r'class="(above|below|within)">\1', fair) and "Not comparable" not in fair
    assert "not the complete MVTec AD test set" in fair
    assert not re.search(r'class="(above|below|within)">', made) and "<strong>Not comparable:</strong> These images are made." in made
    with pytest.raises(ReportError, match="'GPT' is not a published backbone"):
        page(Evaluation(predictions, backbone="GPT"))


def test_charts_are_files_too():
    found = figures(Evaluation(answers(20), logs={"SC-GRPO": LOG}))
    assert {"intervals", "rates", "lengths", "rewards-sc-grpo", "length-sc-grpo"} == set(found)
    for svg in found.values():
        assert ElementTree.fromstring(svg).tag.endswith("svg")


@pytest.mark.parametrize(
    "low, high, expected",
    [(0, 100, ["0", "20", "40", "60", "80", "100"]), (0, 1, ["0", "0.2", "0.4", "0.6", "0.8", "1"]), (0, 12.5, ["0", "2.5", "5", "7.5", "10", "12.5"]),
     (-0.2, 0.3, ["-0.2", "-0.1", "0", "0.1", "0.2", "0.3"]), (1000, 6000, ["1,000", "2,000", "3,000", "4,000", "5,000", "6,000"])],
)  # fmt: skip
def test_an_axis_has_round_ticks(low, high, expected):
    assert [text for _, text in charts.Axis("", low, high, 0, 1).ticks] == expected


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=900))
def test_every_log_can_be_drawn(values):
    log = [{"step": float(step), "loss": value} for step, value in enumerate(values)]
    chart = charts.curve("loss", "Loss", log, {"loss": "training"}, "loss")
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", chart.series[0].line)]
    assert all(0 <= number <= 440 for number in numbers)
    assert 2 <= len(chart.y.ticks) <= 12


def test_a_log_is_read_with_its_gaps(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss,eval_loss\n5,2.5,\n10,1.5,1.75\n")
    assert read_log(tmp_path / "log.csv") == [{"step": 5.0, "loss": 2.5}, {"step": 10.0, "loss": 1.5, "eval_loss": 1.75}]
    (tmp_path / "log.csv").write_text("step,loss\n")
    assert read_log(tmp_path / "log.csv") == []
    (tmp_path / "log.csv").write_text("loss\n2.5\n")
    with pytest.raises(ReportError, match="a column `step`; found loss"):
        read_log(tmp_path / "log.csv")
    with pytest.raises(ReportError, match="no such file"):
        read_log(tmp_path / "none.csv")


def test_a_reliability_chart_has_a_mark_for_each_bar():
    made = Calibration.of([0.25] * 8 + [0.75] * 8, [1, 0, 0, 0] * 2 + [1, 1, 1, 0] * 2)
    chart = charts.reliability([("SC-GRPO", 2, made)])
    assert [text for _, _, text in chart.series[0].marks] == [
        "SC-GRPO: 8 answers of 25 %, 25 % defective",
        "SC-GRPO: 8 answers of 75 %, 75 % defective",
    ]
    assert "expected calibration error 0.0 %" in chart.said


@pytest.mark.parametrize("size", [(40, 30), (64, 64), (1000, 700), (300, 2000)])
def test_a_thumbnail_is_small_and_never_enlarged(tmp_path, size):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    Image.fromarray(np.eye(*size, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    sample = Sample("a", "d", "c", (str(tmp_path / "noise.png"),), True, mask=str(tmp_path / "mask.png"))
    picture = pictures([sample])["a"].whole
    assert max(picture.width, picture.height) == min(SIDE, max(size))
    assert picture.width / picture.height == pytest.approx(size[1] / size[0], rel=0.02)
    assert len(picture.url) < LIMIT * 4 / 3 + 40 and picture.outline.startswith("data:image/png;base64,")
    assert len(thumbnail(Image.open(tmp_path / "noise.png"))) <= LIMIT


@pytest.mark.parametrize(
    "size, defect, near",
    [((600, 400), (10, 10, 30, 20), (88, 88)), ((600, 400), (590, 390, 600, 400), (88, 88)), ((600, 400), (100, 100, 170, 150), (176, 176)),
     ((600, 400), (100, 100, 300, 150), None), ((150, 150), (10, 10, 12, 12), None), ((600, 60), (10, 10, 30, 20), (60, 60))],
)  # fmt: skip
def test_a_small_defect_of_a_large_image_is_also_shown_from_near(tmp_path, size, defect, near):
    Image.new("RGB", size, "grey").save(tmp_path / "image.png")
    mask = Image.new("L", size)
    mask.paste(255, defect)
    mask.save(tmp_path / "mask.png")
    found = pictures([Sample("a", "d", "c", (str(tmp_path / "image.png"),), True, mask=str(tmp_path / "mask.png"))])["a"].near
    assert (found and (found.width, found.height)) == near
    assert found is None or found.outline is not None


def test_what_cannot_be_read_has_no_picture(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert pictures([Sample("a", "d", "c", (str(tmp_path / "broken.png"),), False), Sample("b", "d", "c", ("none.png",), False)]) == {}


def test_the_command_writes_a_page_for_anyones_predictions(tmp_path, capsys):
    predictions = answers(20)
    write_predictions(tmp_path / "p.jsonl", predictions)
    write_samples(tmp_path / "s.jsonl", drawn(tmp_path / "images", predictions))
    told = ["--samples", str(tmp_path / "s.jsonl"), "--compare", "base", "sc_grpo", "--html", str(tmp_path / "page.html")]
    assert main(["report", str(tmp_path / "p.jsonl"), *told]) == 0
    html = (tmp_path / "page.html").read_text()
    assert "<title>SC-GRPO against Base</title>" in html and len(data_of(html)["cards"]) == 20
    assert capsys.readouterr().out.startswith("| model")
