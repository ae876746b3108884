"""One grammar: what is well formed, and how everything else is read."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iadr1.verdict import TAGS, Verdict, _general

NORMAL = "<think>even grain</think><answer>No</answer>"
ANOMALOUS = "<think>a dark line</think><location>top left</location><type>scratch</type><answer>Yes</answer>"


@pytest.mark.parametrize(
    "text, anomalous",
    [
        (NORMAL, False),
        (ANOMALOUS, True),
        ("<THINK>even</THINK>\n<Answer> no </Answer>\n", False),  # tags and answer in any case, white space between and inside
        (ANOMALOUS.replace("><", ">\n\t <"), True),
        ("<think>width < 3 mm, height > 2</think><answer>No</answer>", False),  # a "<" is no tag
        ("<think>use <b>bold</b></think><answer>No</answer>", False),  # nor is another tag
        ("<think>even</think><answer>No.</answer>", False),
        ("<think>even</think><answer>**no**</answer>", False),
        ("<think>line\nbreak</think><answer>\nNo\n</answer>", False),
    ],
)
def test_the_two_patterns_are_well_formed(text, anomalous):
    verdict = Verdict.parse(text)
    assert (verdict.anomalous, verdict.status) == (anomalous, "ok")
    assert verdict.pattern == ("anomalous" if anomalous else "normal")


@pytest.mark.parametrize(
    "text, anomalous, status",
    [
        # An answer can be read, but the form is wrong.
        ("Sure! " + NORMAL, False, "malformed"),  # text before
        (NORMAL + " I hope this helps.", False, "malformed"),  # text after
        ("<answer>No</answer>", False, "malformed"),  # no reasoning
        ("<think></think><answer>No</answer>", False, "malformed"),  # empty reasoning
        ("<think> \n </think><answer>No</answer>", False, "malformed"),
        ("<think>a</think><answer>Yes</answer>", True, "malformed"),  # yes in the normal pattern
        (ANOMALOUS.replace("Yes", "No"), False, "malformed"),  # no in the anomalous pattern
        ("<think>a</think><location></location><type>x</type><answer>Yes</answer>", True, "malformed"),  # empty block
        ("<think>a</think><type>x</type><location>left</location><answer>Yes</answer>", True, "malformed"),  # order
        ("<answer>No</answer><think>a</think>", False, "malformed"),
        ("<think>a</think><think>b</think><answer>No</answer>", False, "malformed"),  # repeated block
        ("<think>a</think><answer>No</answer><answer>No</answer>", False, "malformed"),
        ("<answer>No</answer>No</answer>No</answer>", False, "malformed"),  # runaway that agrees with itself
        ("<answer><answer>Yes</answer></answer>", True, "malformed"),  # nested
        ("<think>so <answer>Yes</answer></think><answer>No</answer>", False, "malformed"),  # an answer inside the reasoning is not one
        ("<think>so <answer>Yes</answer>", True, "malformed"),  # a reasoning that never closes hides nothing
        ("<think>a</think><answer>Yes, a scratch</answer>", True, "malformed"),
        ("<think>a</think><answer>No defects found</answer>", False, "malformed"),
        # Yes and no are both given.
        ("<think>a</think><answer>yes or no</answer>", None, "ambiguous"),
        ("<answer>Yes</answer><answer>No</answer>", None, "ambiguous"),
        ("<answer>No</answer>Yes</answer>", None, "ambiguous"),
        ("<think>a</think><answer>maybe</answer><answer>Yes</answer>", None, "ambiguous"),
        # The text stops.
        ("<think>the surface of the", None, "truncated"),
        ("<think>a</think>", None, "truncated"),
        ("<think>a</think><answer>Yes", None, "truncated"),
        ("<think>a</think><location>top left</location><ty", None, "truncated"),
        # Neither yes nor no.
        ("", None, "unreadable"),
        ("The part is fine.", None, "unreadable"),
        ("<think>a</think><answer></answer>", None, "unreadable"),
        ("<think>a</think><answer>maybe</answer>", None, "unreadable"),
        ("<think>a</think><answer>unknown</answer>", None, "unreadable"),  # "no" is a part of it
        ("<think>a</think><answer>Abnormal</answer>", None, "unreadable"),
        ("<think>a</think><answer>normal</answer>", None, "unreadable"),
        ("<think>a</think><answer>none</answer>", None, "unreadable"),
        ("<think>a</think><answer>not sure</answer>", None, "unreadable"),
        ("<think>a</think><answer>eyes</answer>", None, "unreadable"),
        ("<think>a</think><answer>No doubt it is broken</answer>", None, "unreadable"),
        ("<think>a</think><answer>n/a</answer>", None, "unreadable"),
    ],
)
def test_anything_else_is_read_with_a_status(text, anomalous, status):
    verdict = Verdict.parse(text)
    assert (verdict.anomalous, verdict.status) == (anomalous, status)


def test_a_cut_text_is_truncated_unless_it_is_whole():
    assert Verdict.parse("no tag at all", truncated=True).status == "truncated"
    assert Verdict.parse(NORMAL, truncated=True).status == "ok"


@pytest.mark.parametrize(
    "text, anomalous, status",
    [
        ("Yes, there is a noticeable scratch.", True, "ok"),
        ("No, the surface looks fine.", False, "ok"),
        ("No.", False, "ok"),
        ("yes", True, "ok"),
        ("A", True, "ok"),
        ("B.", False, "ok"),
        ("(A) Yes.", True, "ok"),
        ("The answer is B.", False, "ok"),
        ("Option A", True, "ok"),
        ("B: No.", False, "ok"),
        ("A. No.", None, "ambiguous"),  # the letter says yes
        ("The answer is: No.", False, "ok"),
        ("**Answer:** Yes", True, "ok"),
        ("Final answer: yes, a dent", True, "ok"),
        ("Based on the image, there are no visible defects.", False, "malformed"),
        ("A or B", None, "unreadable"),
        ("No - wait, yes there is.", None, "ambiguous"),
        ("Yes. No other damage.", True, "ok"),
        ("It is impossible to tell whether there is a defect.", None, "unreadable"),
        ("Nothing", None, "unreadable"),
        ("There are visible defects", True, "malformed"),  # a clear statement without yes or no
        ("The surface looks normal.", False, "malformed"),
        ("There is no defect.", False, "malformed"),
        ("No doubt there is a defect.", True, "malformed"),
        ("yes or no", None, "ambiguous"),
        ("I cannot tell.", None, "unreadable"),
        ("Not sure.", None, "unreadable"),
        ("Are there any defects? No", False, "malformed"),  # the question is no statement
        ("Is there a scratch?", None, "unreadable"),
        ("I see a label. The answer is no.", False, "malformed"),
        ("It is bent, so the answer is: **Yes**", True, "malformed"),
        ("The answer is no longer clear.", None, "unreadable"),
        ("Option B is correct.", False, "ok"),
        ('{"answer": "yes"}', True, "malformed"),
        ("I first think: the answer is yes. Then: the answer is A. No: answer: B.", None, "ambiguous"),
        ("<think>Could be no scratch.</think>Yes", True, "ok"),  # what follows a base model's reasoning
        ("<think>There is a scratch", None, "truncated"),
        ("", None, "unreadable"),
        ("<think>a</think><answer>No</answer>", False, "ok"),  # tags first
        ("<think>a</think><answer>A</answer>", True, "malformed"),  # MMAD's prompt asks for a letter in the tags
        ("<think>a</think> <answer> (B). </answer>", False, "malformed"),
        ("<answer>A</answer><answer>B</answer>", None, "unreadable"),
        ("<answer>a</answer>", None, "unreadable"),
        ("<answer>C</answer>", None, "unreadable"),
    ],
)
def test_free_text_is_read_by_words_and_option_letters(text, anomalous, status):
    verdict = Verdict.read(text)
    assert (verdict.anomalous, verdict.status) == (anomalous, status)


CONTENT = st.text(min_size=1, max_size=80).map(str.strip).filter(lambda text: text and not any(f"{tag}>" in text.lower() for tag in TAGS))


@given(CONTENT, CONTENT, CONTENT, st.booleans())
def test_a_rendered_verdict_parses_to_itself(reasoning, location, kind, anomalous):
    verdict = Verdict(anomalous, location, kind, reasoning) if anomalous else Verdict(anomalous, None, None, reasoning)
    assert Verdict.parse(verdict.render()) == verdict


PIECES = st.sampled_from(
    [*(f"<{tag}>" for tag in TAGS), *(f"</{tag}>" for tag in TAGS), "Yes", "No", "maybe", " ", "\n", "a", "<", "İ", ""]
)


@given(st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=300), st.booleans())
def test_parse_never_raises_and_an_ok_verdict_is_whole(text, truncated):
    verdict = Verdict.parse(text, truncated=truncated)
    Verdict.read(text, truncated=truncated)
    if verdict.status == "ok":
        assert verdict.reasoning and (verdict.anomalous is False or (verdict.location and verdict.type))
        assert Verdict.parse(verdict.render()) == verdict
    assert (verdict.anomalous is None) == (verdict.status in ("ambiguous", "truncated", "unreadable"))


@given(
    st.lists(PIECES | st.sampled_from(["<thin\u212a>", "<an\u017fwer>", "</an\u017fwer>", "ye\u017f", "\u00a0"]), max_size=10).map("".join)
)
def test_a_text_is_read_the_same_by_the_short_way_and_the_general_one(text):
    assert Verdict.parse(text) == _general(text, False)


@pytest.mark.parametrize(
    "text",
    ["<thin\u212a>a</thin\u212a><answer>No</answer>", "<th\u0130nk>a</th\u0130nk><answer>No</answer>", NORMAL.replace("s", "\u017f")],
)
def test_a_tag_is_of_ascii_letters(text):
    assert Verdict.parse(text).status != "ok"


RUNAWAYS = [
    "No</answer>",
    "<",
    "<think>",
    "</think>",
    "<answer>No</answer>",
    " ",
    "<answer>",
    "a",
    "< ",
    "<type>x</type>",
    "yes no ",
    "İ",
    "<think>a</think>",
    ". ",
    "\n",
    "answer ",
    ".yes",
]


@pytest.mark.parametrize("piece", RUNAWAYS)
def test_a_megabyte_is_read_in_under_50_ms_of_one_core(piece):
    text = piece * (1_000_000 // len(piece))
    fastest = min(_seconds(Verdict.parse, text) for _ in range(3))
    assert fastest < 0.05
    assert min(_seconds(Verdict.read, text) for _ in range(3)) < 0.05


def _seconds(function, text):
    start = time.process_time()
    function(text)
    return time.process_time() - start


def test_a_block_that_holds_a_tag_is_not_rendered():
    with pytest.raises(ValueError, match="a block cannot hold one of the tags"):
        Verdict(False, None, None, "it says </think>").render()
