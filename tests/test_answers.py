"""Answers are kept as they come: a cut line is no answer, another form is named, several processes write side by side."""

import json

import pytest

from iadr1.engines import Generated
from iadr1.errors import ReportError
from tasks._answers import Answers

ANSWER = Generated("<answer>No</answer> ü\n", False, 3, 0.1234567890123, "stop", 0.5)


def kept(folder, names, answer=ANSWER):
    answers = Answers(folder)
    answers.add((name, answer) for name in names)
    return answers


def test_what_was_kept_is_read_back_to_the_last_bit(tmp_path):
    answers = kept(tmp_path, ["a", "b"])
    answers.add([("c", Generated("", True, 0))])
    for found in (answers, Answers(tmp_path)):
        assert [*found.of("cba")] == [Generated("", True, 0), ANSWER, ANSWER] and "d" not in found
        assert [answer.seconds for answer in found.of("ca")] == [None, 0.5]


def test_a_line_that_a_kill_cut_is_no_answer_and_goes_on_in_a_file_of_its_own(tmp_path):
    kept(tmp_path, "abc")
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == 10]
    for size in range(len(whole) + 1):
        file.write_bytes(whole[:size])
        assert list(Answers(tmp_path).places) == list("abc"[: sum(end <= size for end in ends)])
    file.write_bytes(whole[:-1])
    kept(tmp_path, "c")
    assert [*Answers(tmp_path).of("abc")] == [ANSWER] * 3 and file.read_bytes() == whole[:-1]


def test_processes_write_side_by_side(tmp_path):
    first, second = kept(tmp_path, "ab"), kept(tmp_path, "cd")
    first.add([("e", ANSWER)])
    assert "c" not in first
    first.reload()
    assert [*first.of("abcde")] == [ANSWER] * 5 and "e" not in second


@pytest.mark.parametrize(
    "line, said",
    [
        ("{}", "no answer"),
        ("half", "no answer"),
        ("[1]", "no answer"),
        ('{"id": "a", "text": "No"}', r"an answer has \['finish', 'p_yes', .*; found \['text'\]"),
    ],
)
def test_a_line_of_another_form_is_named(tmp_path, line, said):
    file = tmp_path / "1-0000.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(ReportError, match=rf"1-0000\.jsonl, byte 0: {said}.*Remove the file"):
        Answers(tmp_path)


def test_a_missing_answer_is_named(tmp_path):
    with pytest.raises(ReportError, match="b was not answered"):
        list(kept(tmp_path, "a").of("ab"))


def test_lines_are_json_that_others_can_read(tmp_path):
    kept(tmp_path, "a")
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["text"] == ANSWER.text
