"""Floors that a report must reach."""

import pytest

from iadr1.gates import decide

SUMMARY = {
    "mean_balanced_accuracy": 76.0,
    "datasets": {"mvtec": {"tpr": 80.0, "unreadable": 0.0}, "visa": {"tpr": 60.0, "unreadable": 2.5}},
}


@pytest.mark.parametrize(
    "floors, passed",
    [
        ({}, True),
        ({"mean_balanced_accuracy": 76.0}, True),
        ({"mean_balanced_accuracy": 76.1}, False),
        ({"mvtec.tpr": 80.0}, True),
        ({"min.tpr": 61.0}, False),
        ({"max.unreadable": 2.5}, True),
        ({"max.unreadable": 2.0}, False),
        ({"sdd.tpr": 0.0}, False),  # not evaluated is not passed
        ({"mean_balanced_accuracy": 70.0, "min.tpr": 61.0}, False),
    ],
)
def test_every_floor_must_be_reached(floors, passed):
    assert decide(SUMMARY, floors).passed is passed


def test_a_decision_says_why_not():
    decision = decide(SUMMARY, {"mean_balanced_accuracy": 80.0, "sdd.tpr": 50.0, "mvtec.tpr": 10})
    assert decision.reason == "mean_balanced_accuracy is 76.00, not at least 80; sdd.tpr: not in the report, so it cannot be at least 50"
    assert decide(SUMMARY, {"mvtec.tpr": 10}).reason == "all 1 gates passed"


def test_not_a_number_does_not_pass():
    assert not decide({"mean_balanced_accuracy": float("nan")}, {"mean_balanced_accuracy": 0.0}).passed
