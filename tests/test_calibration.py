"""What P(yes) is worth: against scikit-learn, by hand, and in the report."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iadr1.calibration import Calibration, best_threshold
from iadr1.report import EvalReport, thresholds
from iadr1.report_tables import markdown_p_yes
from tests.test_report import random_predictions


def test_a_small_set_by_hand():
    found = Calibration.of([0.05, 0.15, 0.85, 0.15], [0, 1, 1, 0], missing=(0, 1), threshold=0.5)
    assert (found.n, found.missing, found.auroc) == (4, 1, 87.5)
    # Bins: {0.05: none of 1}, {0.15, 0.15: 1 of 2}, {0.85: 1 of 1}.
    assert found.ece == pytest.approx(100 * (1 * 0.05 + 2 * 0.35 + 1 * 0.15) / 4)
    assert [bar.n for bar in found.bins if bar] == [1, 2, 1] and found.bins[1].anomalous == 0.5
    # Of three defects one is called; the one without P(yes) is missed as well.
    assert (found.at_threshold.tnr, found.at_threshold.tpr) == (100.0, pytest.approx(100 / 3))


def test_one_kind_of_images_has_a_calibration_error_but_nothing_to_order():
    found = Calibration.of([1.0, 0.5], [1, 1], threshold=0.6)
    assert (found.auroc, found.average_precision, found.ece) == (None, None, 25.0)
    assert (found.at_threshold.tpr, found.at_threshold.tnr, found.at_threshold.balanced_accuracy) == (50.0, None, None)
    assert best_threshold([1.0, 0.5], [1, 1]) is None


def test_a_model_that_says_its_true_chances_is_calibrated_and_one_that_exaggerates_is_not():
    rng = np.random.default_rng(0)
    chance = rng.random(20_000)
    label = (rng.random(20_000) < chance).astype(int)
    true, bold = Calibration.of(chance, label), Calibration.of(chance**0.25, label)
    assert true.ece < 1.5 < 20 < bold.ece
    assert true.auroc == pytest.approx(bold.auroc)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 8).map(lambda n: n / 8), st.booleans()), min_size=2, max_size=30))
def test_no_threshold_is_better_than_the_best(pairs):
    chances, labels = [p for p, _ in pairs], [int(label) for _, label in pairs]
    best = best_threshold(chances, labels)
    if len(set(labels)) < 2:
        assert best is None
        return

    def rate(cut):
        return Calibration.of(chances, labels, threshold=cut).at_threshold.balanced_accuracy

    assert 0 <= best <= 1 and rate(best) == pytest.approx(max(rate(cut) for cut in np.linspace(0, 1, 33)))


def sure(predictions, *, flip=1.0):
    rng = np.random.default_rng(1)
    return [replace(one, p_yes=float(np.clip(0.5 + flip * (one.anomalous - 0.5) * rng.random(), 0, 1))) for one in predictions]


def test_the_report_holds_it_where_answers_have_it_and_is_otherwise_as_it_was():
    plain = EvalReport.of(random_predictions(60))
    assert "p_yes" not in plain.to_json() and markdown_p_yes(plain.to_dict()) == ""
    report = EvalReport.of(sure(random_predictions(60)))
    entry = report.to_dict()["models"]["sc_grpo"]["datasets"]["mvtec"]
    assert entry["p_yes"]["auroc"] == 100.0 and entry["p_yes"]["at_threshold"] is None
    assert EvalReport.from_json(report.to_json()) == report
    assert "| AUROC |" in markdown_p_yes(report.to_dict())


def test_the_threshold_comes_from_validation_alone():
    test = sure(random_predictions(80))
    shifted = [replace(one, p_yes=one.p_yes / 4) for one in sure(random_predictions(80, seed=5))]
    report = EvalReport.of(test, validation=shifted)
    found = report.to_dict()["models"]["sc_grpo"]["datasets"]["mvtec"]["p_yes"]["at_threshold"]
    assert found["threshold"] == thresholds(shifted)["sc_grpo"] < 0.2
    assert found["tpr"] == 100.0 and found["tnr"] < 60
    assert EvalReport.from_json(report.to_json()) == report


def test_images_without_p_yes_are_counted_and_are_wrong_at_any_threshold():
    test = sure(random_predictions(40))
    some = [replace(one, p_yes=None) if at % 4 == 0 else one for at, one in enumerate(test)]
    found = EvalReport.of(some, validation=test).to_dict()["models"]["sc_grpo"]["datasets"]["mvtec"]["p_yes"]
    assert found["missing"] == sum(one.p_yes is None and one.dataset == "mvtec" for one in some) > 0
    assert found["auroc"] == 100.0 and found["at_threshold"]["balanced_accuracy"] < 100
