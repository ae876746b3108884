"""`iadr1 inspect`: what a person, a script and a page are told."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from iadr1.cli import main
from iadr1.engines import ENGINES, Generated, images_of
from iadr1.inspection import exit_code, inspection, inspections, schema_text
from iadr1.inspection_page import save_page, save_pictures, table_of
from iadr1.marked import chance, marked
from tests.tiny import tiny_backbone

SCHEMA = Path(__file__).parents[1] / "iadr1" / "schemas" / "inspection.json"
BAD = "<think>A dark line.</think><location>top left</location><type>scratch</type><answer>Yes</answer>"
GOOD = "<think>Even.</think><answer>No</answer>"
CUT = "<think>The surface"


TEXTS = {"bad": BAD, "good": GOOD, "cut": CUT}


class Scripted:
    """An engine that answers by the stem of the query image."""

    def __init__(self, model=None, **settings):
        self.settings, self.asked = settings, []

    def __call__(self, chats, done=lambda count: None):
        self.asked += chats
        done(len(chats))
        return [Generated(TEXTS[Path(images_of(chat)[-1]).stem], False, 9, p_yes=0.75, seconds=0.5) for chat in chats]


@pytest.fixture
def parts(tmp_path):
    """A folder with one image of each kind."""
    folder = tmp_path / "parts"
    (folder / "deeper").mkdir(parents=True)
    for name in ("bad.png", "good.png", "cut.png", "deeper/good.JPG"):
        Image.new("RGB", (40, 30), "grey").save(folder / name)
    return folder


@pytest.fixture
def scripted(monkeypatch, tmp_path):
    monkeypatch.setitem(ENGINES, "transformers", Scripted)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return ["--model", str(tiny_backbone())]


def found(text, image="part.png"):
    return inspection(image, Generated(text, False, 9, p_yes=0.75, seconds=0.5), grid=3)


@pytest.mark.parametrize(
    "texts, code",
    [
        ([GOOD], 0),
        ([BAD], 10),
        ([CUT], 1),
        (["It might be."], 1),
        ([GOOD, BAD], 10),
        ([GOOD, CUT], 1),
        ([CUT, BAD], 10),
        ([], 1),
    ],
)
def test_the_exit_code_is_0_only_when_every_image_is_good(texts, code):
    assert exit_code([found(text) for text in texts]) == code


@pytest.mark.parametrize("text", ["", "<answer></answer>", "<answer>maybe</answer>", "<answer>Yes</answer><answer>No</answer>", "No", CUT])
def test_an_answer_that_cannot_be_read_is_never_good(text):
    one = found(text)
    assert one.answer is None and "cannot be read" in one.error and exit_code([one]) == 1


def test_a_verdict_as_a_person_reads_it(parts, scripted, capsys):
    assert main(["inspect", str(parts / "bad.png"), *scripted]) == 10
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{parts / 'bad.png'}: DEFECT, P(yes) 0.75"
    assert lines[1:5] == ["where      top left", "           # · ·", "           · · ·", "           · · ·"]
    assert lines[5:8] == ["type       scratch", "reasoning  A dark line.", "picture    inspection/bad.png"]
    assert lines[8].endswith(" in 0.50 s")
    assert Image.open("inspection/bad.png").size[0] >= 320
    assert main(["inspect", str(parts / "good.png"), *scripted]) == 0
    assert "good.png: good, P(yes) 0.75\nreasoning  Even.\n" in capsys.readouterr().out


def test_json_is_one_object_a_line_that_follows_the_published_schema(parts, scripted, capsys):
    jsonschema = pytest.importorskip("jsonschema")
    (parts / "broken.png").write_bytes(b"no image")
    assert main(["inspect", str(parts), *scripted, "--json", "--grid", "4"]) == 10
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    for row in rows:
        jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(row)
    assert [Path(row["image"]).name for row in rows] == ["bad.png", "broken.png", "cut.png", "good.JPG", "good.png"]
    assert [(row["answer"], row["cells"], row["status"]) for row in rows[:3]] == [
        ("Yes", [[0, 0]], "ok"),
        (None, [], None),
        (None, [], "truncated"),
    ]
    assert "broken.png: cannot be read as an image" in err and "cut.png: the answer cannot be read (truncated): <think>The surface" in err
    assert not Path("inspection").exists()


def test_the_published_schema_is_that_of_the_code(capsys):
    assert main(["inspect", "--schema"]) == 0
    assert capsys.readouterr().out == schema_text() == SCHEMA.read_text(), f"run `iadr1 inspect --schema > {SCHEMA}`"


def test_a_folder_gives_a_table_and_a_page_that_holds_everything(parts, scripted, capsys):
    assert main(["inspect", str(parts), *scripted, "--out", "today"]) == 10
    text = capsys.readouterr().out
    assert text.count("\n| ") == 4 and "4 images: 1 defective, 2 good, 1 without an answer" in text and "Page: today/index.html" in text
    page = Path("today/index.html").read_text()
    assert page.count("<article") == 4 and "[[" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)|<script|url\(', page)
    assert sorted(path.name for path in Path("today").iterdir()) == ["bad.png", "cut.png", "good-2.png", "good.png", "index.html"]


def test_what_a_model_says_is_text_on_the_page_and_never_markup(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    said = found(BAD.replace("A dark line.", "<script>alert(1)</script>[[cards]]"), str(tmp_path / "a.png"))
    page = save_page([said], tmp_path, model="<b>").read_text()
    assert "&lt;script&gt;alert(1)" in page and "<script" not in page and "By &lt;b&gt;." in page and page.count("<article") == 1


def test_references_are_shown_before_the_query(parts):
    engine = Scripted()
    list(inspections(engine, [str(parts / "bad.png")], references=[str(parts / "good.png")]))
    assert images_of(engine.asked[0]) == [str(parts / "good.png"), str(parts / "bad.png")]


@pytest.mark.parametrize("size", [(1, 1), (40, 30), (3000, 20), (2000, 1500)])
def test_any_picture_can_be_marked(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "a.png")
    long = found(BAD.replace("scratch", "scratch " * 30), str(tmp_path / "a.png"))
    assert max(marked(long).size) <= 1024 + 30


def test_a_marked_cell_is_red_and_the_others_are_as_they_were(tmp_path):
    Image.new("RGB", (600, 600), (128, 128, 128)).save(tmp_path / "a.png")
    picture = marked(found(BAD, str(tmp_path / "a.png")))
    assert picture.getpixel((100, 100)) != (128, 128, 128) and picture.getpixel((300, 300)) == (128, 128, 128)


def test_pictures_of_equal_names_do_not_overwrite_each_other(tmp_path):
    files = [tmp_path / name for name in ("a/x.png", "b/x.png", "x-2.png")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(file)
    written = save_pictures([found(GOOD, str(file)) for file in files], tmp_path / "out")
    assert len({path.name for path in written.values()}) == 3 and all(path.is_file() for path in written.values())


@pytest.mark.parametrize("p_yes, told", [(None, ""), (0.0, "<0.01"), (0.0049, "<0.01"), (0.5, "0.50"), (0.9951, ">0.99"), (1.0, ">0.99")])
def test_no_probability_is_told_as_certain(p_yes, told):
    assert chance(replace(found(GOOD), p_yes=p_yes)) == told


def test_the_table_shortens_what_is_long():
    assert max(map(len, table_of([found(BAD, "folder/" * 40 + "a.png")]).splitlines())) < 120


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["none.png", "--model", "TINY"], "iadr1: none.png: no such file or folder."),
        (["empty", "--model", "TINY"], "iadr1: empty: no images in this folder; an image ends with .bmp, .jpeg"),
        (
            ["a.png", "--model", "nowhere"],
            "--model nowhere: no such folder. Name a model folder, or a registered model as models:/NAME@ALIAS.",
        ),
        (["a.png", "--model", "empty"], "empty: no model here (config.json is missing)"),
        (["a.png", "--model", "weightless"], "weightless: no safetensors weights; found ['pytorch_model.bin']"),
        (["a.png", "--model", "other"], "model type 'bert' is not supported"),
        (["a.png", "--model", "models:/iad-r1"], "a registered model is models:/NAME@ALIAS or models:/NAME/VERSION"),
        (["a.png", "--model", "models:/iad-r1@staging"], "no registry: there is no mlflow.db in"),
        (["a.png"], "Make one with `make run`, set MLFLOW_TRACKING_URI to your server, or name a model: --model FOLDER."),
        (["a.png", "--model", "TINY", "--reference", "none.png"], "none.png: no such file. Give another --reference."),
        (["text.png", "--model", "TINY"], "text.png: cannot be read as an image (cannot identify image file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, scripted, capsys, arguments, message):
    Image.new("RGB", (8, 8)).save("a.png")
    Path("text.png").write_text("a text")
    for folder, files in {"empty": {}, "weightless": {"pytorch_model.bin": ""}, "other": {"model.safetensors": ""}}.items():
        Path(folder).mkdir()
        for name, content in {**files, **({"config.json": '{"model_type": "bert"}'} if files else {})}.items():
            Path(folder, name).write_text(content)
    assert main(["inspect", *(str(tiny_backbone()) if given == "TINY" else given for given in arguments)]) == 1
    assert message in capsys.readouterr().err
    assert not Path("mlflow.db").exists()


@pytest.mark.parametrize("arguments", [[], ["a.png", *["--reference", "b.png"] * 5], ["a.png", "--grid", "9"]])
def test_a_command_given_wrongly_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["inspect", *arguments])
    assert ended.value.code == 2 and "usage: iadr1 inspect" in capsys.readouterr().err


def test_help_teaches_by_examples_and_names_the_exit_codes(capsys):
    with pytest.raises(SystemExit):
        main(["inspect", "--help"])
    text = capsys.readouterr().out
    assert all(line in text for line in ("iadr1 inspect part.png --reference good.png", "10  a defect was found", "--json | jq"))


def test_a_real_model_of_random_weights_is_told_to_say_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (48, 48)).save("part.png")
    assert main(["inspect", "part.png", "--model", str(tiny_backbone())]) == 1
    out, err = capsys.readouterr()
    assert "part.png: NO ANSWER" in out and "the answer cannot be read" in err and Path("inspection/part.png").is_file()
