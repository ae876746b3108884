"""Parity with what the authors' released code was observed to compute, row by row."""

import pytest

from iadr1.released import cell, released_verdict, type_score
from iadr1.rewards import score
from iadr1.samples import Sample

NORMAL = Sample("n", "made", "plate", ("n.png",), False)
ANOMALOUS = Sample("s", "made", "plate", ("s.png",), True, "center", "scratch")
GOOD = "<think>t</think><answer>No</answer>"
BAD = "<think>t</think><location>center</location><type>scratch</type><answer>Yes</answer>"


@pytest.mark.parametrize(
    "text, sample, expected",
    [
        (GOOD, NORMAL, 1.0),
        ("prefix " + GOOD + " suffix", NORMAL, 1.0),  # anything before and after
        (GOOD * 3, NORMAL, 1.0),  # repeated
        ("<think></think><answer></answer>", NORMAL, 1.0),  # empty
        (GOOD + "</location>", NORMAL, 1.0),  # a lone closing tag
        (GOOD + "<LOCATION>", NORMAL, 1.0),  # upper case
        (GOOD.replace("><", "> <"), NORMAL, 0.0),  # white space between blocks
        (GOOD.replace("><", ">\n<"), NORMAL, 0.0),
        (GOOD + "<location>", NORMAL, 0.0),  # an opening tag anywhere
        (GOOD + "<type>", NORMAL, 0.0),
        (BAD, NORMAL, 0.0),
        (GOOD.replace("think>t", "think>a\nb"), NORMAL, 1.0),
        (BAD, ANOMALOUS, 1.0),
        (BAD.replace("Yes", "No"), ANOMALOUS, 1.0),  # whatever is answered
        ("x" + BAD + BAD, ANOMALOUS, 1.0),
        (BAD.replace("center", ""), ANOMALOUS, 1.0),
        (BAD.replace("><type", ">\n<type"), ANOMALOUS, 0.0),
        (GOOD, ANOMALOUS, 0.0),
        ("<think>t</think><type>scratch</type><location>center</location><answer>Yes</answer>", ANOMALOUS, 0.0),
    ],
)
def test_consistency_is_a_lenient_match_of_the_ground_truths_layout(text, sample, expected):
    assert score(text, sample, preset="released").consistency == expected


@pytest.mark.parametrize(
    "answer, anomalous",
    [("Yes", True), (" no ", False), ("YES", True), ("Yes.", None), ("\nYes\n", None), ("", None), ("unknown", None), ("Abnormal", None)],
)
def test_an_answer_is_the_first_on_one_line_and_exact(answer, anomalous):
    assert released_verdict(f"<answer>{answer}</answer>").anomalous is anomalous
    assert released_verdict(f"<answer>{answer}</answer><answer>Yes</answer>").anomalous is (True if "\n" in answer else anomalous)


@pytest.mark.parametrize(
    "text, sample, total",
    [
        (GOOD, NORMAL, 2.0),
        (BAD, ANOMALOUS, 3.0),  # not 4
        (BAD.replace("Yes", "No"), ANOMALOUS, 2.0),  # location and type are paid for a "No"
        ("<location>center</location><type>scratch</type>", ANOMALOUS, 1.0),  # and without an answer
        (BAD, NORMAL, 0.0),
    ],
)
def test_totals_are_at_most_2_and_3(text, sample, total):
    assert score(text, sample, preset="released").total == total


@pytest.mark.parametrize(
    "words, expected",
    [
        ("top left", 1), ("upper left", 1), ("top", 2), ("top right", 3), ("left", 4), ("center", 5), ("right", 6), ("bottom left", 7), ("lower", 8),
        ("bottom right", 9), ("", 5), ("unknown blob", 5), ("near the edge", 5), ("whole image", 5), ("north west", 5), ("under", 5), ("above", 5),
        ("bright spot", 6), ("flower", 8), ("laptop", 2), ("left and right", 4), ("top and bottom", 2), ("top left, center right", 1), ("TOP LEFT", 1),
    ],
)  # fmt: skip
def test_locations_are_found_by_substring(words, expected):
    assert cell(words) == expected


@pytest.mark.parametrize(
    "said, true, expected",
    [
        ("scratch", "scratch", 1.0), ("stain", "dirt", 0.85), ("scratches", "scratch", 0.85), ("scrach", "scratch", 0.83), ("bent", "bending", 0.67),
        ("through hole", "through-hole", 0.68), ("hole", "damage", 0.3), ("hole", "scratch", 0.0), ("surface damage", "contamination", 0.0),
        ("surface anomaly", "surface anomalies", 0.79), ("surface anomaly", "scratch", 0.3), ("structural anomalies", "hole", 0.3),
        ("surface anomalies", "hole", 0.0), ("broken", "damage", 0.0), ("crack", "fracture", 0.0), ("dent", "deformation", 0.0), ("pit", "hole", 0.0),
        ("discoloration", "color anomaly", 0.0), ("rust", "contamination", 0.0), (".", "scratch", 0.85), ("!!!", "hole", 0.85), ("a", "scratch", 0.85),
        ("e", "hole", 0.85), ("whole surface", "hole", 0.85), ("no damage", "damage", 0.85), ("stainless steel", "stain", 0.85),
        ("hole damage deformation abrasion", "hole", 0.85), ("", "scratch", 0.0), ("scratch", "", 0.0),
    ],
)  # fmt: skip
def test_types_score_as_observed(said, true, expected):
    assert type_score(said, true) == pytest.approx(expected, abs=0.005)


def test_a_category_match_earns_060_to_085_by_confidence():
    assert type_score("debris", "contaminant object") == 0.85  # both exact keywords
    assert type_score("bent", "bending") == pytest.approx(0.6 + 0.25 * 4 / 14)
    assert type_score("scrach", "scratch") == pytest.approx(0.6 + 0.25 * 12 / 13)


@pytest.mark.parametrize(
    "said, true, ratio",
    [("crooked", "crookd", 12 / 13), ("burnt", "burned", 8 / 11), ("broken", "breken", 10 / 12), ("crack", "crook", 0.0)],
)
def test_a_fuzzy_match_without_a_category_earns_028_to_040(said, true, ratio):
    assert type_score(said, true) == pytest.approx(0.4 * ratio)
    assert ratio == 0.0 or 0.28 <= type_score(said, true) <= 0.40
