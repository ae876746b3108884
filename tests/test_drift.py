"""Drift: what is told apart from chance and what is not, for answers, P(yes), the look of images and accuracy."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from iadr1.drift import VALUES, Drift, Limits, Observation, look_of, markdown, read_observations, write_observations
from iadr1.errors import ReportError


def batch(count: int, *, seed: int = 0, yes: float = 0.3, right: float | None = None, **moved: float) -> list[Observation]:
    """Observations of one process; `yes` is the rate of that answer, `moved` shifts a value, with `right` half have a defect and a label."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        anomalous = number % 2 == 0 if right is not None else None
        answer = chance.random() < yes if right is None else anomalous if chance.random() < right else not anomalous
        values = {name: chance.gauss(0.5, 0.1) + moved.get(name, 0.0) for name in VALUES}
        found.append(Observation(f"{number}.png", answer, values.pop("p_yes"), anomalous, **values))
    return found


def drifted(reference: list[Observation], new: list[Observation], **limits: float) -> list[str]:
    return [measure.name for measure in Drift.of(reference, new, Limits(**limits)).measures if measure.drifted]


@pytest.mark.parametrize(
    "change, measures",
    [
        ({}, []),
        ({"yes": 0.7}, ["answers"]),
        ({"yes": 0.35}, []),  # less than the limit
        ({"brightness": 0.1}, ["brightness"]),
        ({"brightness": -0.1}, ["brightness"]),
        ({"contrast": 0.1, "sharpness": -0.1}, ["contrast", "sharpness"]),
        ({"size": 0.2}, ["size"]),
        ({"p_yes": 0.1}, ["p_yes"]),
        ({"brightness": 0.01}, []),
    ],
)
def test_each_measure_tells_its_own_drift(change: dict[str, float], measures: list[str]) -> None:
    assert drifted(batch(300), batch(300, seed=1, **change)) == measures


@pytest.mark.parametrize("now, expected", [(0.95, False), (0.9, False), (0.6, True), (1.0, False)])
def test_accuracy_drifts_only_downwards_and_only_with_labels(now: float, expected: bool) -> None:
    reference = batch(400, right=0.9)
    new = batch(400, seed=1, right=now)
    assert ("balanced_accuracy" in drifted(reference, new)) is expected
    (accuracy,) = [measure for measure in Drift.of(reference, new, Limits()).measures if measure.name == "balanced_accuracy"]
    low, high = accuracy.interval or (0.0, 0.0)
    assert low <= -accuracy.distance <= high
    hidden = [replace(one, anomalous=None) for one in new]
    assert "balanced_accuracy" not in [measure.name for measure in Drift.of(reference, hidden, Limits()).measures]


def test_a_large_difference_of_few_images_is_not_yet_drift() -> None:
    assert drifted(batch(300), batch(4, yes=1.0)) == []
    assert Drift.of(batch(300), batch(29, yes=1.0), Limits()).verdict == "undecided"
    assert Drift.of(batch(300), [], Limits()).verdict == "undecided"
    assert "at least 30 of each" in Drift.of(batch(300), batch(29), Limits()).reason


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(30, 120))
def test_two_batches_of_the_same_process_hardly_ever_differ(seed: int, count: int) -> None:
    # With alpha as low as this not once in these examples; the limit on distance plays no part.
    assert drifted(batch(120, seed=seed), batch(count, seed=seed + 1), distance=0.0, drop=0.0, alpha=1e-7) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 60))
def test_distances_are_0_of_itself_alike_both_ways_and_never_above_1(seed: int, first: int, second: int) -> None:
    one, other = batch(first, seed=seed), batch(second, seed=seed + 1, yes=0.8, size=0.1)
    assert all(measure.distance == 0 for measure in Drift.of(one, one, Limits()).measures)
    there, back = (Drift.of(*sides, Limits()).measures for sides in ((one, other), (other, one)))
    assert [measure.distance for measure in there] == pytest.approx([measure.distance for measure in back])
    assert all(0 <= measure.distance <= 1 for measure in there)


def test_an_engine_that_tells_no_probability_has_one_measure_less() -> None:
    silent = [replace(one, p_yes=None) for one in batch(50)]
    assert "p_yes" not in [measure.name for measure in Drift.of(silent, silent, Limits()).measures]


def test_unreadable_answers_are_an_answer_of_their_own() -> None:
    mute = [replace(one, answer=None) for one in batch(100)]
    assert drifted(batch(100), mute) == ["answers"]


def test_the_look_of_an_image_is_what_a_camera_changes(tmp_path) -> None:
    sharp = Image.fromarray(np.random.default_rng(0).integers(60, 180, (40, 60), dtype=np.uint8))
    looks = {}
    for name, image in {
        "plain": sharp,
        "dark": sharp.point(lambda grey: grey // 2),
        "blurred": sharp.filter(ImageFilter.GaussianBlur(2)),
        "small": sharp.resize((30, 20)),
        "one pixel": Image.new("L", (1, 1), 255),
    }.items():
        image.save(tmp_path / f"{name}.png")
        looks[name] = look_of(tmp_path / f"{name}.png")
    assert looks["dark"]["brightness"] == pytest.approx(looks["plain"]["brightness"] / 2, abs=0.01)
    assert looks["blurred"]["sharpness"] < looks["plain"]["sharpness"] / 5
    assert looks["blurred"]["contrast"] < looks["plain"]["contrast"]
    assert looks["small"]["size"] == pytest.approx(looks["plain"]["size"] / 2)
    assert looks["one pixel"] == {"brightness": 1.0, "contrast": 0.0, "sharpness": 0.0, "size": 1.0}


def test_observations_come_back_from_their_file(tmp_path) -> None:
    seen = [*batch(3), *batch(2, right=1.0), replace(batch(1)[0], answer=None, p_yes=None)]
    write_observations(tmp_path / "seen.jsonl", seen)
    assert read_observations(tmp_path / "seen.jsonl") == seen


@pytest.mark.parametrize("line", ["{", "[]", '{"image": "a.png"}', "null"])
def test_a_line_that_is_no_observation_is_named(tmp_path, line: str) -> None:
    (tmp_path / "seen.jsonl").write_text(line + "\n")
    with pytest.raises(ReportError, match=r"seen\.jsonl:1: not an observation"):
        read_observations(tmp_path / "seen.jsonl")
    with pytest.raises(ReportError, match=r"other\.jsonl: no such file"):
        read_observations(tmp_path / "other.jsonl")


def test_a_person_reads_the_verdict_first() -> None:
    page = markdown(Drift.of(batch(100, right=0.9), batch(100, seed=1, right=0.9, brightness=0.3), Limits()))
    assert page.startswith("**drift**: drift of brightness (distance 0.")
    assert "| brightness        | 0." in page and "| answers           |" in page and "| balanced_accuracy |" in page
