"""Metrics from predictions."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iadr1.errors import ReportError
from iadr1.report import EvalReport, Prediction, interval, read_predictions, write_predictions

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


def test_what_an_engine_tells_of_an_answer_is_kept_and_what_it_does_not_tell_is_not_written():
    told = replace(small()[0], p_yes=0.25, finish="stop", seconds=1.5)
    assert Prediction.from_json(told.to_json()) == told
    assert not {"p_yes", "finish", "seconds"} & json.loads(small()[0].to_json()).keys()
    for wrong in (1.2, -0.1, float("nan")):
        with pytest.raises(ReportError, match="p_yes is a probability, 0 to 1"):
            Prediction.from_json(replace(told, p_yes=wrong).to_json())


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(ReportError, match="no such file"):
        read_predictions(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"sample_id": 1}\n')
    with pytest.raises(ReportError, match=r"bad.jsonl:1: a prediction has"):
        read_predictions(tmp_path / "bad.jsonl")
    for wrong, said in {
        "anomalous": "anomalous is true or false; found 'yes'",
        "tokens": "tokens is a whole number",
        "type": "type is a text or null",
    }.items():
        with pytest.raises(ReportError, match=said):
            Prediction.from_json(replace(small()[0], **{wrong: "yes" if wrong != "type" else 3}).to_json())
    with pytest.raises(ReportError, match="reader is tags or free; found 'x'"):
        Prediction.from_json(replace(small()[0], reader="x").to_json())
    with pytest.raises(ReportError, match="answered twice by sc_grpo"):
        EvalReport.of(small() + small()[:1])
    with pytest.raises(ReportError, match="schema 7"):
        EvalReport.from_json('{"schema": 7}')
    with pytest.raises(ReportError, match="the report is not whole"):
        EvalReport.from_json(EvalReport.of(small()).to_json().replace('"type_counts"', '"typo"'))


def random_predictions(count, seed=0):
    rng = random.Random(seed)
    return [
        prediction(
            i,
            rng.random() < 0.6,
            rng.choice([YES, YES, NO, NO, "?"]),
            category=rng.choice(["tile", "wood"]),
            dataset=rng.choice(["mvtec", "sdd"]),
        )
        for i in range(count)
    ]


def test_rates_agree_with_scikit_learn():
    from sklearn.metrics import balanced_accuracy_score, f1_score, matthews_corrcoef, precision_score

    predictions = [p for p in random_predictions(400) if p.dataset == "sdd"]
    row = EvalReport.of(predictions).to_dict()["models"]["sc_grpo"]["datasets"]["sdd"]
    true = [p.anomalous for p in predictions]
    # An unreadable answer is the wrong one.
    said = [not p.anomalous if p.verdict.anomalous is None else p.verdict.anomalous for p in predictions]
    assert row["balanced_accuracy"] == pytest.approx(100 * balanced_accuracy_score(true, said))
    assert row["mcc"] == pytest.approx(100 * matthews_corrcoef(true, said))
    read = [(t, s) for t, s, p in zip(true, said, predictions, strict=True) if p.verdict.anomalous is not None]
    assert row["precision"] == pytest.approx(100 * precision_score(*zip(*read, strict=True)))
    clear = [p for p in predictions if p.verdict.anomalous is not None]
    found = EvalReport.of(clear).to_dict()["models"]["sc_grpo"]["datasets"]["sdd"]
    assert found["f1"] == pytest.approx(100 * f1_score([p.anomalous for p in clear], [p.verdict.anomalous for p in clear]))


def test_the_interval_is_that_of_resampled_images():
    predictions = [p for p in random_predictions(300) if p.dataset == "mvtec"]
    found = EvalReport.of(predictions, rounds=4000).models["sc_grpo"].datasets["mvtec"]
    rng = np.random.default_rng(0)
    right = {label: np.array([p.verdict.anomalous is label for p in predictions if p.anomalous is label]) for label in (True, False)}
    naive = [50 * sum(rng.choice(values, len(values)).mean() for values in right.values()) for _ in range(4000)]
    assert interval(found.resampled("mvtec", 4000)) == pytest.approx(interval(naive), abs=1.0)


def test_pooled_and_macro_are_both_reported():
    predictions = [prediction(i, i < 2, YES if i != 1 else NO, category="easy") for i in range(10)]
    predictions += [prediction(20 + i, i < 8, YES if i < 8 else NO, category="hard") for i in range(10)]
    row = EvalReport.of(predictions).to_dict()["models"]["sc_grpo"]["datasets"]["mvtec"]
    assert row["classes"]["easy"]["balanced_accuracy"] == 25.0 and row["classes"]["hard"]["balanced_accuracy"] == 100.0
    assert row["macro_balanced_accuracy"] == 62.5
    assert row["balanced_accuracy"] == pytest.approx(50 * (9 / 10 + 2 / 10))


def test_seeds_are_pooled_and_named_but_do_not_narrow_the_interval():
    one = random_predictions(200)
    three = [replace(p, seed=seed) for seed in range(3) for p in one]
    once, thrice = EvalReport.of(one).models["sc_grpo"], EvalReport.of(three).models["sc_grpo"]
    assert thrice.seeds == dict.fromkeys((0, 1, 2), once.mean_balanced_accuracy)
    assert thrice.mean_ci() == pytest.approx(once.mean_ci())


def test_a_base_model_is_not_asked_where_and_what():
    predictions = [replace(p, reader="free", text="Yes." if p.text == YES else "No.") for p in small()]
    row = EvalReport.of(predictions).to_dict()["models"]["sc_grpo"]["datasets"]["mvtec"]
    assert (row["tpr"], row["location_accuracy"], row["type_accuracy"], row["agreement"]) == (60.0, None, None, None)


def test_one_kind_of_images_has_no_balanced_accuracy():
    row = EvalReport.of([prediction(0, True, YES)]).to_dict()["models"]["sc_grpo"]
    assert (row["mean_balanced_accuracy"], row["mean_balanced_accuracy_ci"], row["datasets"]["mvtec"]["tpr"]) == (None, None, 100.0)
    assert EvalReport.of([]).to_dict()["models"] == {}


@given(st.permutations(random_predictions(40)))
def test_the_order_of_predictions_changes_nothing(predictions):
    assert EvalReport.of(predictions, rounds=10).to_json() == EvalReport.of(random_predictions(40), rounds=10).to_json()


def test_each_defect_type_has_its_detection_rate():
    predictions = [prediction(i, True, YES if i else NO, type="scratch" if i < 2 else "hole") for i in range(3)] + [
        prediction(9, False, NO)
    ]
    found = EvalReport.of(predictions)
    assert found.to_dict()["models"]["sc_grpo"]["datasets"]["mvtec"]["types"] == {
        "hole": {"anomalous": 1, "tpr": 100.0},
        "scratch": {"anomalous": 2, "tpr": 50.0},
    }
    assert EvalReport.from_json(found.to_json()) == found


def test_statuses_and_lengths_are_reported():
    predictions = [
        replace(prediction(i, True, text, tokens=10 * i)) for i, text in enumerate([YES, "x" + YES, "?", "<think>cut", YES + NO])
    ]
    row = EvalReport.of(predictions).to_dict()["models"]["sc_grpo"]["datasets"]["mvtec"]
    assert row["statuses"] == {"ok": 20.0, "malformed": 20.0, "ambiguous": 20.0, "truncated": 20.0, "unreadable": 20.0}
    assert (row["unreadable"], row["tokens"]) == (60.0, 20.0)


def test_lengths_that_nobody_counted_are_not_zero():
    assert EvalReport.of(small()).to_dict()["models"]["sc_grpo"]["datasets"]["mvtec"]["tokens"] is None
