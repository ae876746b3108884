"""Two models on the same images."""

import numpy as np
import pytest
from scipy.stats import binomtest

from iadr1.comparison import Comparison, Pairs, holm
from iadr1.errors import ReportError
from iadr1.report import Prediction, interval

YES, NO = "<think>A line.</think><location>left</location><type>dent</type><answer>Yes</answer>", "<think>Even.</think><answer>No</answer>"


def answers(model, says, *, seed=0, dataset="mvtec"):
    """One prediction for each answer; the first half of the images is anomalous."""
    return [Prediction(str(i), dataset, "tile", model, i < len(says) // 2, YES if say else NO, seed=seed) for i, say in enumerate(says)]


def test_pairs_are_counted_by_label_and_who_is_right():
    found = Comparison.of(answers("a", [1, 1, 0, 0, 0, 1]) + answers("b", [1, 0, 0, 1, 0, 0]), "a", "b")
    assert found.datasets == (Pairs("mvtec", normal=(1, 1, 1, 0), anomalous=(1, 1, 0, 1)),)
    assert found.datasets[0].difference == pytest.approx(50 * (-1 / 3))
    assert found.mean_difference == found.datasets[0].difference


def test_mcnemar_is_the_exact_binomial_test_of_the_disagreements():
    pairs = Pairs("mvtec", normal=(50, 9, 2, 5), anomalous=(40, 6, 1, 3))
    assert pairs.p_value == pytest.approx(binomtest(15, 18).pvalue)
    assert Pairs("mvtec", normal=(5, 0, 0, 5), anomalous=(5, 0, 0, 5)).p_value == 1.0


def test_the_paired_interval_is_that_of_resampled_images():
    pairs = Pairs("mvtec", normal=(50, 9, 2, 5), anomalous=(40, 6, 1, 3))
    rng = np.random.default_rng(0)
    gains = [np.repeat([0.0, -1.0, 1.0, 0.0], label) for label in (pairs.normal, pairs.anomalous)]
    naive = [sum(50 * rng.choice(gain, len(gain)).mean() for gain in gains) for _ in range(4000)]
    assert interval(pairs.resampled(4000)) == pytest.approx(interval(naive), abs=0.8)


def test_seeds_do_not_add_images():
    once = Pairs("mvtec", normal=(50, 9, 2, 5), anomalous=(40, 6, 1, 3))
    thrice = Pairs("mvtec", normal=(150, 27, 6, 15), anomalous=(120, 18, 3, 9), seeds=3)
    assert (thrice.difference, thrice.p_value) == (pytest.approx(once.difference), pytest.approx(once.p_value))
    assert interval(thrice.resampled(1000)) == pytest.approx(interval(once.resampled(1000)))


def test_holm_corrects_for_the_number_of_tests():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_only_shared_images_count_and_none_is_an_error():
    predictions = answers("a", [1, 0]) + answers("b", [1, 0, 1, 0])
    assert Comparison.of(predictions, "a", "b").datasets[0].n == 2
    with pytest.raises(ReportError, match="a and c share no image; the predictions are of a, b"):
        Comparison.of(predictions, "a", "c")
