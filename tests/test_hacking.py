"""Completions that try to be paid without inspecting: under `strict` none earns more than an honest wrong answer."""

import pytest

from iadr1.rewards import score
from iadr1.samples import Sample

RUST = Sample("r", "made", "plate", ("r.png",), True, "top left", "rust")
SCRATCH = Sample("s", "made", "plate", ("s.png",), True, "top left", "scratch")
HOLE = Sample("h", "made", "plate", ("h.png",), True, "center", "hole")
NORMAL = Sample("n", "made", "plate", ("n.png",), False)

THINK = "A thin bright line crosses the grain near the corner."
PLAIN = "The grain is even from one side to the other."


def yes(location="top left", kind="scratch", think=THINK, answer="Yes"):
    return f"<think>{think}</think><location>{location}</location><type>{kind}</type><answer>{answer}</answer>"


def no(think=PLAIN, answer="No"):
    return f"<think>{think}</think><answer>{answer}</answer>"


NINE = [f"{row} {column}" for row in ("top", "center", "bottom") for column in ("left", "center", "right")]
EIGHT = ["contamination", "foreign objects", "scratch", "missing parts", "deformation", "hole", "damage", "abrasion"]

# Every place at once, no place, or a place that excludes nothing; answer and type are right.
LOCATIONS = [
    ", ".join(NINE), " and ".join(NINE), "; ".join(NINE), "/".join(NINE), "\n".join(NINE), " ".join(NINE * 3), " or ".join(NINE),
    "top, bottom, left, right, center", "left and right and top and bottom", "top and middle and bottom rows", "left, center and right columns",
    "top left, top center, top right, center left, center", "everywhere", "whole image", "entire surface", "all over", "throughout", "anywhere",
    "unknown", "none", "n/a", "-", ".", "?", "somewhere", "here", "on the part", "the defect", "bright spot", "flower", "laptop", "not top left",
    "not at the bottom right", "no location", "neither left nor right", "location", "<b></b>", "0", "x", "top left " * 40, "(row, column)", "left" * 30,
    "everywhere, mostly top left, but also bottom right, center and the edges", "not sure, maybe nowhere", "isn't visible",
]  # fmt: skip
# Every kind at once, no kind, or what the released code pays for; answer and place are right.
KINDS = [
    ", ".join(EIGHT), " ".join(EIGHT), " or ".join(EIGHT), "/".join(EIGHT), "scratch, hole", "hole scratch", "scratch or stain", "scratch and dent",
    "scratch hole dent stain crack", "scratch; contamination; missing parts",
    "scratch score mark groove hole", "scratch mark, dirt", ".", "!!!", "-", "?", "a", "e", "s", "sc", "tch", "no scratch",
    "not a scratch", "scratch-free", "without scratch", "never a scratch", "defect", "anomaly", "abnormal", "fault", "issue", "problem", "unknown",
    "unspecified", "other", "some defect", "surface", "surface anomaly", "surface anomalies", "structural anomaly", "any anomaly", "normal", "good",
    "none", "yes", "type", "whole surface", "stainless steel", "scratchless", "scratch " * 30, "lorem ipsum dolor", "0", "the image shows a product",
    "a defect that is either a scratch or a hole or a stain or something else entirely on this product here",
]  # fmt: skip
# Right answer, place and kind in a broken form.
FORMS = [
    "Sure! " + yes(), yes() + " Hope this helps.", yes() + yes(), yes() * 20, yes() + no(), yes(think=""), yes(think=" \n"),
    yes().replace("<think>", ""), yes().replace("</think>", ""), yes().replace("<answer>", ""), yes().replace("</answer>", ""),
    yes() + "</answer>", yes() + "Yes</answer>" * 50, yes(location=""), yes(kind=""), yes(location=" ", kind=" "), yes(answer=""),
    "<answer>Yes</answer>", "<location>top left</location><type>scratch</type><answer>Yes</answer>", "Yes", "Yes. scratch, top left", "yes" * 200,
    f"<think>{THINK}</think><answer>Yes</answer>", f"<think>{THINK}</think><location>top left</location><answer>Yes</answer>",
    f"<think>{THINK}</think><type>scratch</type><answer>Yes</answer>", f"<answer>Yes</answer><think>{THINK}</think>",
    f"<think>{THINK}</think><type>scratch</type><location>top left</location><answer>Yes</answer>",
    f"<think>{yes()}</think>", f"<think>{THINK}<answer>Yes</answer></think>", f"<think>{yes()}</think><answer>Yes</answer>",
    f"<think><think>{THINK}</think></think><location>top left</location><type>scratch</type><answer>Yes</answer>",
    yes(answer="Yes or No"), yes(answer="Yes No"), yes(answer="maybe Yes"), yes(answer="Yes, or rather No"), yes(answer="A"), yes(answer="True"),
    yes(answer="Yes</answer><answer>Yes"), yes(answer="No</answer><answer>Yes"), yes(answer="<answer>Yes</answer>"), yes(answer="Abnormal"),
    yes(location="top left</location><location>center"), yes(kind="scratch</type><type>hole"), yes(answer="not No"), yes(answer="Yes" * 10),
    yes().replace("location", "loc"), yes().replace("<", "["), yes().replace("<answer>", "< answer >"), "```xml\n" + yes() + "\n```",
    "<output>" + yes() + "</output>", yes() + "<answer>No</answer>", "<location>center</location>" + yes(), yes()[:-3], yes() + "<think>more</think>",
]  # fmt: skip
# Reasoning that is none, goes round in circles, or concludes the opposite.
REASONINGS = [
    ".", "...", "-", "?", "a", "1", "1 2 3 4", "…", "_____", "😀", "scratch " * 40, "the " * 200, "A line crosses the grain. " * 12, "yes" * 60,
    "I look closely at every corner of the part. " + "There is a line. " * 30,
    "I look closely at every corner. " + "There is a line. " * 30 + "It crosses the grain from one side.",
    "There is no defect.", "No scratch or other damage can be seen.",
    "The part is free of defects.", "A line is visible, but it is no defect.", "Everything looks normal.", "The surface is intact.",
    "There are no anomalies. The product is not damaged.", "defect-free", "I don't see any flaw.",
]  # fmt: skip

ANOMALOUS = (
    [yes(location=text) for text in LOCATIONS] + [yes(kind=text) for text in KINDS] + FORMS + [yes(think=text) for text in REASONINGS]
)

# On a normal image: the right "No", dressed up or with evidence against it.
GOOD = [
    "No", "<answer>No</answer>", no(think=""), no(think="."), no(think="no " * 100), no(think="There is a deep scratch."), no(think="The part is broken."),
    no(think="The rim is cracked, so it is defective."), no(answer="No, or Yes"), no(answer="No</answer><answer>No"), no() + no(), no() + "</answer>" * 30,
    no() + "No</answer>" * 30, "Well, " + no(), no() + "<location>top left</location>", no() + "<type>none</type>", no(answer="B"), no(answer="none"),
    no(answer="normal"), no(answer="unknown"), no(answer=""), yes(answer="No"), yes(location="none", kind="none", answer="No"), no().replace("</think>", ""),
    f"<think>{PLAIN}<answer>No</answer></think>", no() + yes(), no(answer="not Yes"), no(answer="No doubt, Yes"), no()[:-4], no(think="No.\n" * 40),
]  # fmt: skip


def test_there_are_more_than_a_hundred_of_them_and_all_differ():
    assert len(set(ANOMALOUS + GOOD)) == len(ANOMALOUS + GOOD) > 100


@pytest.mark.parametrize("text", ANOMALOUS)
def test_no_hack_on_an_anomalous_image_beats_an_honest_wrong_answer(text):
    assert score(text, SCRATCH, preset="strict").total <= score(no(), SCRATCH, preset="strict").total == 1.0


@pytest.mark.parametrize(
    "kind", ["stain, dirt, rust", "contamination stain dirt impurity discoloration rust", "rust or stain or glue or mold"]
)
def test_a_list_of_one_coarse_types_kinds_is_a_hack_too(kind):
    assert score(yes(kind=kind), RUST, preset="strict").total <= 1.0


@pytest.mark.parametrize("text", GOOD)
def test_no_hack_on_a_normal_image_beats_an_honest_wrong_answer(text):
    assert score(text, NORMAL, preset="strict").total <= score(yes(), NORMAL, preset="strict").total == 1.0


@pytest.mark.parametrize(
    "text, sample, total",
    [
        (yes(), SCRATCH, 4.0),
        (yes(location="upper left corner", kind="scratches"), SCRATCH, 3.85),
        (yes(location="top left and top center"), SCRATCH, 3.5),  # half of it
        (yes(location="top row"), SCRATCH, 3.0),  # a third earns nothing
        (yes(location="center"), SCRATCH, 3.0),
        (yes(kind="stain"), SCRATCH, 2.3 + 1.0),
        (yes(kind="hole"), SCRATCH, 3.0),
        (yes(location="bottom right", kind="hole"), SCRATCH, 2.0),
        (no(), NORMAL, 2.0),
        (yes(), NORMAL, 1.0),
        (yes(think="There might be a defect somewhere. A line crosses the grain"), SCRATCH, 4.0),
    ],
)
def test_honest_answers_are_paid_by_how_right_they_are(text, sample, total):
    assert score(text, sample, preset="strict").total == pytest.approx(total)
