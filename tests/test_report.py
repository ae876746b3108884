"""Metrics from predictions."""

import random

import pytest

from iadr1.errors import ReportError
from iadr1.report import EvalReport, Prediction, read_predictions, write_predictions

YES = "<think>A line.</think><location>top left</location><type>scratch</type><answer>Yes</answer>"
NO = "<think>Even.</think><answer>No</answer>"


def prediction(number, anomalous, text, **more):
    known = {"dataset": "mvtec", "category": "tile", "model": "sc_grpo"} | more
    return Prediction(f"{known['category']}/{number}", anomalous=anomalous, text=text, **known)


def small():
    found = [
        prediction(i, True, YES if i < 3 else NO if i == 3 else "?", visibility=i / 10, location="top left", type="stain") for i in range(5)
    ]
    return found + [prediction(10 + i, False, NO if i < 3 else YES) for i in range(4)]


def test_rates_of_a_small_set():
    row = EvalReport.of(small()).to_dict()["models"]["sc_grpo"]["datasets"]["mvtec"]
    assert (row["n"], row["tpr"], row["tnr"], row["balanced_accuracy"]) == (9, 60.0, 75.0, 67.5)
    assert row["unreadable"] == pytest.approx(100 / 9)
    assert (row["overkill"], row["escape"], row["precision"]) == (25.0, 40.0, 75.0)
    assert (row["location_accuracy"], row["type_accuracy"]) == (100.0, 0.0)
    low, high = row["balanced_accuracy_ci"]
    assert low < 67.5 < high


def test_the_hardest_third_is_the_least_visible():
    row = EvalReport.of(small()).to_dict()["models"]["sc_grpo"]["datasets"]["mvtec"]["hardest_third"]
    assert (row["anomalous"], row["normal"], row["tpr"], row["tnr"]) == (2, 4, 100.0, 75.0)


def test_a_report_round_trips_and_does_not_depend_on_order():
    report = EvalReport.of(small())
    shuffled = small()
    random.Random(0).shuffle(shuffled)
    assert EvalReport.from_json(report.to_json()) == report == EvalReport.of(shuffled)
    assert EvalReport.from_json(report.to_json()).to_json() == EvalReport.of(shuffled).to_json()


def test_predictions_round_trip_through_a_file(tmp_path):
    write_predictions(tmp_path / "p.jsonl", small())
    assert read_predictions(tmp_path / "p.jsonl") == small()


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(ReportError, match="no such file"):
        read_predictions(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"sample_id": 1}\n')
    with pytest.raises(ReportError, match=r"bad.jsonl:1: a prediction has"):
        read_predictions(tmp_path / "bad.jsonl")
    with pytest.raises(ReportError, match="answered twice by sc_grpo"):
        EvalReport.of(small() + small()[:1])
    with pytest.raises(ReportError, match="schema 7"):
        EvalReport.from_json('{"schema": 7}')
