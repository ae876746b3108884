"""Samples in files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iadr1.errors import DatasetError
from iadr1.samples import Sample, read_samples, write_lines, write_samples

SAMPLES = [
    Sample("a", "mvtec", "tile", ("r.png", "q.png"), True, "top left", "scratch", "A line.", ("r.png",), "m.png", 0.25),
    Sample("b", "visa", "pcb", ("q.png",), False),
]


def test_samples_round_trip_through_a_file(tmp_path):
    write_samples(tmp_path / "deep" / "samples.jsonl", SAMPLES)
    assert read_samples(tmp_path / "deep" / "samples.jsonl") == SAMPLES
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["samples.jsonl"]


@given(st.text(), st.text(), st.booleans(), st.none() | st.text())
def test_any_text_survives(name, category, anomalous, location):
    sample = Sample(name, "mvtec", category, ("q.png",), anomalous, location)
    assert Sample.from_json(sample.to_json()) == sample


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "not JSON"),
        ("[]", "found list"),
        ('{"id": "a"}', r"found \['id'\]"),
        ('{"id":"a","dataset":"d","category":"c","images":["q"],"anomalous":true,"label":1}', "label"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, line, message):
    (tmp_path / "bad.jsonl").write_text(SAMPLES[0].to_json() + "\n" + line + "\n")
    with pytest.raises(DatasetError, match=message) as error:
        read_samples(tmp_path / "bad.jsonl")
    assert "bad.jsonl:2" in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match="no such file"):
        read_samples(tmp_path / "none.jsonl")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "samples.jsonl"
    write_samples(path, SAMPLES)

    def broken():
        yield "one"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lines(path, broken())
    assert read_samples(path) == SAMPLES
    assert list(tmp_path.iterdir()) == [path]
