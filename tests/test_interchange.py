"""Other projects' files become samples and come back as they were; samples survive every form."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iadr1.cli import main
from iadr1.cli_data import FORM_NAMES
from iadr1.errors import DatasetError
from iadr1.interchange import KEY, Item, content_of, items_of, read, write
from iadr1.interchange.forms import FORMS
from iadr1.interchange.models import FILES, schema_text
from iadr1.samples import Sample, read_samples, write_samples
from tests import layouts

SCHEMAS = Path(__file__).parents[1] / "iadr1" / "schemas"
CHAIN = "<think>A dark line runs there.</think>"
YES = "<location>top left</location><type>scratch</type><answer>Yes</answer>"
QUESTION = "Are there any defects in the query image?"

names = st.text(st.characters(codec="utf-8", exclude_characters="/\0<>", exclude_categories=("Cs", "Cc", "Zl", "Zp", "Zs")), min_size=1, max_size=8).filter(
    lambda name: name.strip(".") != ""
)  # fmt: skip
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=20)
paths = st.lists(names, min_size=1, max_size=5).map(lambda parts: "/".join(parts) + ".png")


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    tagless = words.filter(lambda text: "<" not in text)
    parts = [draw(names), draw(names), draw(st.sampled_from(["train", "test"])), draw(names), draw(names)]
    return Sample(
        id="/".join(parts), dataset=parts[0], category=parts[1], images=tuple(draw(st.lists(paths, min_size=1, max_size=2))),
        anomalous=draw(st.booleans()), location=draw(st.none() | tagless), type=draw(st.none() | tagless),
        reasoning=draw(st.none() | tagless), references=tuple(draw(st.lists(paths, max_size=3))), mask=draw(st.none() | paths),
        visibility=draw(st.none() | st.floats(0, 1)), physical=draw(st.none() | words),
    )  # fmt: skip


many_samples = st.lists(samples(), max_size=4, unique_by=(lambda sample: sample.id, lambda sample: sample.images[-1]))
easy = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])


def through_json(content: Any) -> Any:
    return json.loads(json.dumps(content))


@pytest.mark.parametrize("form", FORMS)
@easy
@given(many=many_samples, data=st.data())
def test_samples_survive_every_form(form: str, many: list[Sample], data: st.DataObject) -> None:
    shots = data.draw(st.integers(0, min((len(sample.references) for sample in many), default=0)))
    content = through_json(content_of(form, map(Item, many), shots=shots))
    back = [item.sample for item in items_of(form, content, source="x")]
    assert sorted(back, key=lambda sample: sample.id) == sorted(many, key=lambda sample: sample.id)


def question(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"Question": words, "Answer": st.sampled_from("AB"), "Options": st.just({"A": "Yes.", "B": "No."}), "type": st.just(kind)}
    )


extra = st.dictionaries(st.sampled_from(["note", "source"]), st.none() | words | st.integers(), max_size=2)
listed = st.fixed_dictionaries(
    {
        "conversation": st.tuples(question("Anomaly Detection"), st.lists(question("Defect Description"), max_size=2)).map(
            lambda both: [both[0], *both[1]]
        ),
        "similar_templates": st.lists(paths, max_size=2),
        "random_templates": st.lists(paths, max_size=2),
    }
)
meta = st.fixed_dictionaries(
    {"img_path": paths, "mask_path": st.just("") | paths, "cls_name": names, "specie_name": names, "anomaly": st.sampled_from([0, 1])}
)
answers = st.sampled_from(
    [CHAIN + "<answer>No</answer>", CHAIN + YES, "<answer>No</answer>", YES, "<think>?</think>\n<answer>Yes</answer>"]
)
by_category = st.dictionaries(names, st.lists(meta, min_size=1, max_size=2), min_size=1, max_size=2)


def with_more(entries: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(entries, extra).map(lambda both: {**both[1], **both[0]})


def with_path(entries: dict[str, Any]) -> dict[str, Any]:
    return {path: {"image_path": path, **entry} for path, entry in entries.items()}


FOREIGN = {
    "meta": by_category | st.fixed_dictionaries({"train": by_category, "test": by_category}),
    "test": st.dictionaries(paths, with_more(listed), max_size=3).map(with_path),
    "mmad": st.dictionaries(paths, with_more(st.tuples(listed, paths).map(lambda both: both[0] | {"mask_path": both[1]})), max_size=3).map(with_path),
    "pa_sft": st.lists(
        with_more(
            st.fixed_dictionaries(
                {
                    "images": st.lists(paths, min_size=1, max_size=3),
                    "messages": st.tuples(words, answers).map(
                        lambda said: [{"role": "user", "content": said[0]}, {"role": "assistant", "content": said[1]}]
                    ),
                }
            )
        ),
        max_size=3,
    ),
    "sc_grpo": st.lists(
        with_more(
            st.fixed_dictionaries(
                {"id": words | st.integers(), "image": st.lists(paths, min_size=1, max_size=3), "problem": words, "solution": answers}
            )
        ),
        max_size=3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FOREIGN)
@easy
@given(data=st.data())
def test_a_foreign_file_comes_back_as_it_was(form: str, data: st.DataObject) -> None:
    content = data.draw(FOREIGN[form])
    back = through_json(content_of(form, items_of(form, content, source="x"), plain=True))
    assert back == content


@pytest.mark.parametrize("form", FOREIGN)
@pytest.mark.parametrize("via", ["meta", "pa_sft", "sc_grpo"])
@easy
@given(data=st.data())
def test_a_foreign_file_comes_back_through_another_form(form: str, via: str, data: st.DataObject) -> None:
    content = data.draw(FOREIGN[form])
    between = through_json(content_of(via, items_of(form, content, source="x")))
    back = through_json(content_of(form, items_of(via, between, source="y"), plain=True))
    in_any_order = {json.dumps(row, sort_keys=True) for row in content} if isinstance(content, list) else content
    assert ({json.dumps(row, sort_keys=True) for row in back} if isinstance(back, list) else back) == in_any_order


@pytest.mark.parametrize("images", ["q.png", ["q.png"], {"path": "q.png"}, [{"path": "q.png"}]])
def test_one_path_and_a_list_of_one_mean_the_same(images: object) -> None:
    grpo = [{"id": "1", "image": images, "problem": QUESTION, "solution": "<answer>No</answer>"}]
    sft = [
        {"images": images, "messages": [{"role": "user", "content": f"<image>\n{QUESTION}"}, {"role": "assistant", "content": CHAIN + YES}]}
    ]
    (first,), (second,) = items_of("sc_grpo", grpo, source="x"), items_of("pa_sft", sft, source="x")
    assert first.sample.images == second.sample.images == ("q.png",)
    assert content_of("sc_grpo", [first], plain=True)[0]["image"] == content_of("pa_sft", [second], plain=True)[0]["images"] == ["q.png"]
    assert (second.sample.location, second.sample.type, second.sample.reasoning) == ("top left", "scratch", "A dark line runs there.")
    assert second.rest == {}


def test_few_shot_rows_have_a_place_for_each_image() -> None:
    sample = Sample("d/c/train/good/1", "d", "c", ("q.png",), False, reasoning="Even.", references=("a.png", "b.png"))
    (row,) = content_of("pa_sft", [Item(sample)], shots=2, plain=True)
    assert row["images"] == ["a.png", "b.png", "q.png"] and row["messages"][0]["content"].count("<image>") == 3
    assert row["messages"][1]["content"] == "<think>Even.</think><answer>No</answer>"
    with pytest.raises(DatasetError, match="3-shot needs 3 reference images; found 2"):
        content_of("pa_sft", [Item(sample)], shots=3)


def test_meta_json_becomes_the_test_list_that_nobody_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def entry(path: str, kind: str, anomaly: int) -> dict[str, Any]:
        return {"img_path": path, "mask_path": "", "cls_name": "bolt", "specie_name": kind, "anomaly": anomaly}

    content = {"bolt": [entry("My/bolt/test/good/0.png", "good", 0), entry("My/bolt/test/bent/0.png", "bent", 1)]}
    (tmp_path / "meta.json").write_text(json.dumps(content))
    command = ["data", "convert", str(tmp_path / "meta.json"), str(tmp_path / "test.json"), "--from", "meta", "--to", "test", "--plain"]
    assert main(command) == 0
    made = json.loads((tmp_path / "test.json").read_text())
    assert made["My/bolt/test/bent/0.png"] == {
        "image_path": "My/bolt/test/bent/0.png",
        "conversation": [{"Question": QUESTION, "Answer": "A", "Options": {"A": "Yes.", "B": "No."}, "type": "Anomaly Detection"}],
        "similar_templates": [],
        "random_templates": [],
    }
    assert made["My/bolt/test/good/0.png"]["conversation"][0]["Answer"] == "B"
    assert capsys.readouterr().out.endswith(f"2 samples, 1 of them defective, in {tmp_path}/test.json.\n")


def test_labels_are_what_options_say_not_letters_nor_paths() -> None:
    asked = {"Question": "?", "Answer": "A", "Options": {"A": "No.", "B": "Yes."}, "type": "Anomaly Detection"}
    content = {"x/bad/1.png": {"image_path": "x/bad/1.png", "conversation": [asked], "similar_templates": [], "random_templates": []}}
    assert [item.sample.anomalous for item in items_of("test", content, source="x")] == [False]


def test_llamafactory_is_written_beside_what_is_there_and_read_with_its_own_columns(tmp_path: Path) -> None:
    info = tmp_path / "dataset_info.json"
    info.write_text(json.dumps({"other": {"file_name": "o.json", "formatting": "alpaca"}}))
    sample = Sample("d/c/train/hole/1", "d", "c", ("q.png",), True, "top left", "hole", "A hole.", mask="m.png")
    write("llamafactory", info, [Item(sample)], name="mine")
    assert json.loads(info.read_text())["other"] and (tmp_path / "mine.json").is_file()
    assert [item.sample for item in read("llamafactory", info, name="mine")] == [sample]
    said = [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": YES}]
    (tmp_path / "t.json").write_text(json.dumps([{"pics": "a.png", "talk": said}]))
    tags = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}
    theirs = {"file_name": "t.json", "formatting": "sharegpt", "columns": {"messages": "talk", "images": "pics"}, "tags": tags}
    info.write_text(json.dumps({"theirs": theirs}))
    assert [item.sample.location for item in read("llamafactory", info)] == ["top left"]
    for wrong, message in (({"file_name": "/mnt/a.json"}, "outside of it"), ({"formatting": "alpaca"}, "only sharegpt")):
        info.write_text(json.dumps({"theirs": theirs | wrong}))
        with pytest.raises(DatasetError, match=message):
            read("llamafactory", info)
    with pytest.raises(DatasetError, match="name one of its data sets with --name; it has theirs"):
        read("llamafactory", info, name="ours")


@pytest.mark.slow
@settings(deadline=None, max_examples=5)
@given(many_samples.filter(bool))
def test_samples_survive_hugging_face_datasets(tmp_path_factory: pytest.TempPathFactory, many: list[Sample]) -> None:
    folder = tmp_path_factory.mktemp("hf") / "data"
    write("hf", folder, [Item(sample) for sample in many])
    assert [item.sample for item in read("hf", folder)] == many


def test_a_folder_becomes_a_list(tmp_path: Path) -> None:
    layouts.mvtec(tmp_path / "set")
    assert main(["data", "convert", str(tmp_path / "set"), str(tmp_path / "s.jsonl"), "--from", "mvtec", "--to", "samples"]) == 0
    assert main(["data", "convert", str(tmp_path / "s.jsonl"), str(tmp_path / "m.json"), "--from", "samples", "--to", "mmad"]) == 0
    assert main(["data", "convert", str(tmp_path / "m.json"), str(tmp_path / "t.jsonl"), "--from", "mmad", "--to", "samples"]) == 0
    assert len(read_samples(tmp_path / "s.jsonl")) == 5
    assert read_samples(tmp_path / "s.jsonl") == read_samples(tmp_path / "t.jsonl")


def test_what_is_not_kept_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_samples(tmp_path / "s.jsonl", [Sample("d/c/test/hole/1", "d", "c", ("d/c/test/hole/1.png",), True, visibility=0.5, mask="m.png")])
    main(["data", "convert", str(tmp_path / "s.jsonl"), str(tmp_path / "t.json"), "--from", "samples", "--to", "test", "--plain"])
    said = capsys.readouterr().out
    assert "mask: not kept for 1 samples." in said and "visibility: not kept for 1 samples." in said and KEY not in said


BROKEN: list[tuple[str, Callable[[], Any], str]] = [
    ("pa_sft", lambda: [{"images": "a.png"}], r"x: 0/messages: Field required \(see iadr1/schemas/pa_sft.json\)"),
    ("pa_sft", lambda: [{"images": [], "messages": []}], "x: 0/images"),
    ("sc_grpo", lambda: [{"id": "1", "image": "a.png", "problem": "?", "solution": "maybe"}], "x: a.png: a row ends with <answer>Yes"),
    ("test", lambda: {"a.png": {"image_path": "b.png", "conversation": [{}]}}, "x: a.png/conversation/0/Question: Field required"),
    ("meta", lambda: {"bolt": [{"img_path": "a.png", "cls_name": "b", "specie_name": "c", "anomaly": 2}]}, "x: bolt"),
    ("sc_grpo", lambda: [{"id": "1", "image": "a", "problem": "?", "solution": YES, "iadr1": "{"}], "is not ours"),
]  # fmt: skip


@pytest.mark.parametrize("form, content, message", BROKEN)
def test_a_broken_entry_is_named(form: str, content: Callable[[], Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        items_of(form, content(), source="x")


@pytest.mark.parametrize("form", FILES)
def test_the_published_schemas_are_those_of_the_code(form: str) -> None:
    assert (SCHEMAS / f"{form}.json").read_text() == schema_text(form), f"run `iadr1 data schemas {SCHEMAS}`"


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=20)
@given(many=many_samples)
def test_what_is_written_follows_its_published_schema(form: str, many: list[Sample]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    content = through_json(content_of(form, map(Item, many)))
    schema = jsonschema.Draft202012Validator(json.loads((SCHEMAS / f"{form}.json").read_text()))
    assert list(schema.iter_errors(content)) == []


def test_the_command_knows_every_form() -> None:
    assert set(FORM_NAMES) == {*FILES, "samples", "hf"}
