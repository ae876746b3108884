"""MMAD's questions: which are asked, how a letter is read, and what is counted."""

import json
from dataclasses import replace

import pytest

from iadr1.errors import DatasetError
from iadr1.multiple_choice import Choice, Question, accuracies, letter_of, questions_about
from iadr1.samples import Sample

OPTIONS = {"A": "Yes.", "B": "No.", "C": "A scratch.", "D": "Hole"}


@pytest.mark.parametrize(
    "text, letter",
    [
        ("A", "A"),
        ("b.", "B"),
        ("(C)", "C"),
        ("D: Hole", "D"),
        ("**B**", "B"),
        ("The correct answer is C.", "C"),
        ("Answer: D", "D"),
        ("<think>A, or B?</think><answer>B</answer>", "B"),
        ("<answer>A</answer> no, <answer>C", "C"),
        ("<think>B</think>\nA", "A"),
        ("Yes", "A"),
        ("a scratch", "C"),
        ("A scratch is visible", None),  # an article
        ("E", None),
        ("I cannot say.", None),
        ("", None),
    ],
)
def test_a_letter_is_read_where_it_stands_alone(text, letter):
    assert letter_of(text, OPTIONS) == letter


def sample(name, *, anomalous=False, references=()):
    return Sample(f"mvtec/{name}", "mvtec", "tile", (f"/data/raw/mvtec/tile/image/{name}.png",), anomalous, references=references)


def listed(folder, **questions):
    """A file of MMAD's form."""
    content = {
        path: {
            "image_path": path, "similar_templates": [], "random_templates": [], "mask_path": "",
            "conversation": [{"Question": f"What about {kind}?", "Answer": answer, "Options": OPTIONS, "type": kind} for kind, answer in asked],
        }
        for path, asked in questions.items()
    }  # fmt: skip
    (folder / "mmad.json").write_text(json.dumps(content))
    return folder / "mmad.json"


def test_only_questions_about_the_samples_are_asked_below_their_images(tmp_path):
    file = listed(
        tmp_path,
        **{
            "DS-MVTec/tile/image/good/000.png": [("Anomaly Detection", "B"), ("Object Analysis", "C")],
            "DS-MVTec/tile/image/good/001.png": [("Anomaly Detection", "B")],
            "VisA/tile/Data/good/000.png": [("Anomaly Detection", "B")],
        },
    )
    own = sample("good/000", references=("r1.png", "r2.png"))
    first, second = questions_about([own], file)
    assert (first.type, first.answer, second.type) == ("Anomaly Detection", "B", "Object Analysis")
    (asked,) = first.chat(shots=1)
    assert [part["image"] for part in asked["content"] if part["type"] == "image"] == ["r1.png", own.images[0]]
    text = asked["content"][-1]["text"]
    assert text.startswith("What about Anomaly Detection?\nA: Yes.\nB: No.\n") and text.endswith("letter from the given choices directly.")


def test_what_cannot_be_asked_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.json: no such file\. Name MMAD's mmad\.json"):
        questions_about([], tmp_path / "none.json")
    file = listed(tmp_path, **{"DS-MVTec/tile/image/good/000.png": [("Defect Analysis", "Z")]})
    with pytest.raises(DatasetError, match="the answer 'Z' is none of its options"):
        questions_about([sample("good/000")], file)
    with pytest.raises(DatasetError, match="no question is about one of the 1 test images"):
        questions_about([sample("good/009")], file)
    file.write_text('{"x": {"image_path": "x"}}')
    with pytest.raises(DatasetError, match="not MMAD's form: x conversation: Field required"):
        questions_about([sample("good/000")], file)


def test_detection_counts_both_kinds_of_images_alike_and_the_rest_counts_questions():
    def choice(kind, answer, letter, *, anomalous=False):
        return Choice(Question("x", sample("x", anomalous=anomalous), kind, "?", OPTIONS, answer), "", letter)

    detection = [choice("Anomaly Detection", "A", "A", anomalous=True)] * 3 + [choice("Anomaly Detection", "B", "A")]
    others = [choice("Object Analysis", "C", "C"), choice("Object Analysis", "C", None), replace(detection[0], letter=None)]
    found = accuracies(detection + others[:2])
    assert found["Anomaly Detection"] == {"n": 4, "unreadable": 0, "accuracy": 50.0}
    assert found["Object Analysis"] == {"n": 2, "unreadable": 1, "accuracy": 50.0}
    assert found["mean"] == {"n": 6, "unreadable": 1, "accuracy": 50.0}
    assert accuracies([others[2]])["mean"]["accuracy"] == 0.0 and accuracies([])["mean"]["accuracy"] is None
