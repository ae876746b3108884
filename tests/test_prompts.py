"""One prompt for training and evaluation."""

import re

import pytest

from iadr1.errors import DatasetError
from iadr1.prompts import answer_form, messages, question, target
from iadr1.samples import Sample
from iadr1.verdict import Verdict

SAMPLE = Sample("s", "mvtec", "tile", ("query.png",), True, "top left", "scratch", "A line.", ("ref1.png", "ref2.png"))


def test_zero_shot_is_the_image_and_the_question():
    content = messages(SAMPLE)[0]["content"]
    assert content == [{"type": "image", "image": "query.png"}, {"type": "text", "text": "Are there any defects in the query image?"}]


def test_references_come_before_the_query():
    content = messages(SAMPLE, shots=2)[0]["content"]
    assert [part.get("image") for part in content] == [None, "ref1.png", "ref2.png", None, "query.png", None]
    assert content[0]["text"].startswith("Following is 2 image of normal sample")
    assert content[3]["text"] == "Following is image of test sample:"


def test_a_base_model_is_asked_for_yes_or_no():
    assert messages(SAMPLE, base=True)[0]["content"][-1]["text"] == question + " Please answer by yes or no."


def test_missing_references_are_named():
    with pytest.raises(DatasetError, match="s: 3-shot needs 3 reference images; found 2"):
        messages(SAMPLE, shots=3)


def test_the_target_is_the_gold_verdict():
    assert target(SAMPLE) == "<think>A line.</think><location>top left</location><type>scratch</type><answer>Yes</answer>"
    assert Verdict.parse(target(SAMPLE)).status == "ok"


def test_a_sample_without_annotation_keeps_the_form():
    bare = Sample("s", "elpv", "mono", ("q.png",), True, reasoning="It is dark.")
    assert Verdict.parse(target(bare)) == Verdict(True, "unspecified", "unspecified", "It is dark.")


def test_imitation_needs_reasoning():
    with pytest.raises(DatasetError, match="needs its reasoning"):
        target(Sample("s", "elpv", "mono", ("q.png",), False))


def test_a_policy_that_starts_from_the_base_is_told_the_form_before_the_question_in_training_and_evaluation():
    from iadr1.pa_sft import prompt_row

    (text,) = [part["text"] for part in messages(SAMPLE, form=True)[0]["content"] if part["type"] == "text"]
    assert text == answer_form + question
    (trained,) = [part["text"] for part in prompt_row(SAMPLE, form=True)["prompt"][0]["content"] if part["type"] == "text"]
    assert trained == text
    stated = re.findall(r"</?(\w+)>", answer_form)
    assert stated == [tag for tag in ("think", "location", "type", "answer", "think", "answer") for _ in range(2)]
