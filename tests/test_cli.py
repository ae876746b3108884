"""The command line."""

import json

from iadr1.cli import main

GOLD = "<think>A line.</think><location>top left</location><type>scratch</type><answer>Yes</answer>"


def test_score_writes_one_row_for_each_completion(tmp_path):
    rows = [
        {"id": 1, "completion": GOLD, "solution": "<location>top left</location><type>scratch</type><answer>Yes</answer>"},
        {"id": "b", "completion": "<think>Even.</think><answer>No</answer>", "solution": "<answer>No</answer>"},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["score", "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl"), "--preset", "paper"]) == 0
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert found[0] == {"id": 1, "consistency": 1.0, "accuracy": 1.0, "location": 1.0, "type": 1.0, "total": 4.0, "status": "ok"}
    assert found[1] == {"id": "b", "consistency": 1.0, "accuracy": 1.0, "location": None, "type": None, "total": 2.0, "status": "ok"}
