"""The equations of the paper (arXiv 2508.09178), by number, and the rows of its ablation tables as weights."""

from itertools import product

import pytest

from iadr1.locations import cells
from iadr1.rewards import PRESETS, score, trl_rewards
from iadr1.samples import Sample

NORMAL = Sample("n", "made", "plate", ("n.png",), False)
STAIN = Sample("s", "made", "plate", ("s.png",), True, "bottom right", "stain")


def normal_pattern(answer):
    return f"<think>I compare both sides.</think><answer>{answer}</answer>"


def anomalous_pattern(answer, location="bottom right", kind="stain"):
    return f"<think>I compare both sides.</think><location>{location}</location><type>{kind}</type><answer>{answer}</answer>"


@pytest.mark.parametrize(
    "text, sample, expected",
    [
        (normal_pattern("No"), NORMAL, 1.0),
        (normal_pattern("Yes"), NORMAL, 1.0),  # the pattern of the ground truth, whatever is answered
        (anomalous_pattern("Yes"), NORMAL, 0.0),
        (anomalous_pattern("Yes"), STAIN, 1.0),
        (anomalous_pattern("No"), STAIN, 1.0),
        (normal_pattern("No"), STAIN, 0.0),
        ("so: " + anomalous_pattern("Yes"), STAIN, 0.0),  # strictly
        (anomalous_pattern("Yes") * 2, STAIN, 0.0),
        (normal_pattern("No").replace("><", ">\n<"), NORMAL, 1.0),
    ],
)
def test_equation_2_consistency_is_the_pattern_of_the_ground_truth(text, sample, expected):
    assert score(text, sample, preset="paper").consistency == expected


@pytest.mark.parametrize(
    "answer, sample, expected",
    [("Yes", STAIN, 1.0), ("No", STAIN, 0.0), ("maybe", STAIN, 0.0), ("No", NORMAL, 1.0), ("Yes", NORMAL, 0.0), ("", NORMAL, 0.0)],
)
def test_equation_3_accuracy_is_an_equal_answer(answer, sample, expected):
    assert score(anomalous_pattern(answer), sample, preset="paper").accuracy == expected


NAMES = [f"{row} {column}" for row, column in product(("top", "center", "bottom"), ("left", "center", "right"))]


@pytest.mark.parametrize("said, true", list(product(NAMES, NAMES)))
def test_equation_4_location_is_an_equal_cell(said, true):
    sample = Sample("s", "made", "plate", ("s.png",), True, true, "stain")
    assert score(anomalous_pattern("Yes", said), sample, preset="paper").location == float(said == true)


@pytest.mark.parametrize("grid", [1, 2, 3, 4, 5])
def test_equation_4_works_on_the_grids_of_figure_3(grid):
    sample = Sample("s", "made", "plate", ("s.png",), True, "top left", "stain")
    assert len(cells("top left", grid)) == 1
    assert score(anomalous_pattern("Yes", "upper left corner"), sample, preset="paper", grid=grid).location == 1.0
    assert score(anomalous_pattern("Yes", "bottom right"), sample, preset="paper", grid=grid).location == float(grid == 1)


@pytest.mark.parametrize(
    "kind, expected",
    [("stain", 1.0), ("stains", 0.85), ("dirt", 0.6), ("stian", 0.4), ("scratch", 0.3), ("hole", 0.0)],
)
def test_equation_5_type_has_five_levels_in_this_order(kind, expected):
    assert score(anomalous_pattern("Yes", kind=kind), STAIN, preset="paper").type == expected


def test_equation_9_sums_all_four_for_an_anomalous_image():
    found = score(anomalous_pattern("Yes", kind="dirt"), STAIN, preset="paper")
    assert found[:5] == (1.0, 1.0, 1.0, 0.6, 3.6)


def test_equation_9_sums_two_for_a_normal_image():
    assert score(normal_pattern("No"), NORMAL, preset="paper")[:5] == (1.0, 1.0, None, None, 2.0)


def test_location_and_type_need_a_right_answer():
    assert score(anomalous_pattern("No"), STAIN, preset="paper")[:5] == (1.0, 0.0, 0.0, 0.0, 1.0)


def test_without_an_annotation_location_and_type_are_not_scored():
    bare = Sample("s", "elpv", "mono", ("s.png",), True)
    assert score(anomalous_pattern("Yes"), bare, preset="paper")[:5] == (1.0, 1.0, None, None, 2.0)
    assert score(anomalous_pattern("Yes"), bare, preset="strict")[:5] == (1.0, 1.0, None, None, 2.0)


@pytest.mark.parametrize(
    "arm, weights, total",
    [
        ("table 3, original", {"accuracy": 1.0}, 1.0),
        ("table 3, SC-GRPO", {"consistency": 1.0, "accuracy": 1.0, "location": 1.0, "type": 1.0}, 3.6),
        ("table 5, row 1", {"accuracy": 1.0}, 1.0),
        ("table 5, R_loc", {"accuracy": 1.0, "location": 1.0}, 2.0),
        ("table 5, R_type", {"accuracy": 1.0, "type": 1.0}, 1.6),
        ("table 5, R_con and R_loc", {"consistency": 1.0, "accuracy": 1.0, "location": 1.0}, 3.0),
        ("table 5, R_con and R_type", {"consistency": 1.0, "accuracy": 1.0, "type": 1.0}, 2.6),
        ("a cell that table 5 lacks: R_con", {"consistency": 1.0, "accuracy": 1.0}, 2.0),
        ("a cell that table 5 lacks: R_loc and R_type", {"accuracy": 1.0, "location": 1.0, "type": 1.0}, 2.6),
    ],
)
def test_every_row_of_tables_3_and_5_is_a_set_of_weights(arm, weights, total):
    assert score(anomalous_pattern("Yes", kind="dirt"), STAIN, preset="paper", weights=weights).total == pytest.approx(total)
    functions, found = trl_rewards("paper", weights, 3)
    assert [function.__name__ for function in functions] == list(weights) and found == list(weights.values())


def test_the_released_code_halves_location_and_type():
    assert dict(PRESETS["released"].weights) == {"consistency": 1.0, "accuracy": 1.0, "location": 0.5, "type": 0.5}
    assert (
        dict(PRESETS["paper"].weights)
        == dict(PRESETS["strict"].weights)
        == dict.fromkeys(("consistency", "accuracy", "location", "type"), 1.0)
    )
