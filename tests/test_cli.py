"""The command line."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iadr1.cli import main

ROOT = Path(__file__).parents[1]
PREDICTIONS = str(ROOT / "tests" / "golden" / "predictions.jsonl")
GOLD = "<think>A line.</think><location>top left</location><type>scratch</type><answer>Yes</answer>"
SOLUTION = "<location>top left</location><type>scratch</type><answer>Yes</answer>"


def lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_score_writes_one_row_for_each_completion(tmp_path):
    rows = [
        {"id": 1, "completion": GOLD, "solution": SOLUTION},
        {"id": "b", "completion": "<think>Even.</think><answer>No</answer>", "solution": "No"},
    ]
    output = tmp_path / "deep" / "out.jsonl"
    assert main(["score", "--input", lines(tmp_path / "in.jsonl", *rows), "--output", str(output), "--preset", "paper"]) == 0
    first, second = (json.loads(line) for line in output.read_text().splitlines())
    assert first == {"id": 1, "consistency": 1.0, "accuracy": 1.0, "location": 1.0, "type": 1.0, "total": 4.0, "status": "ok"}
    assert second == {"id": "b", "consistency": 1.0, "accuracy": 1.0, "location": None, "type": None, "total": 2.0, "status": "ok"}


@pytest.mark.parametrize(
    "row, message",
    [
        ("{", "in.jsonl:2: not JSON"),
        ({"id": 1}, 'in.jsonl:2: a row has "id", "completion" and "solution"; found [\'id\']'),
        (
            {"id": 1, "completion": GOLD, "solution": "maybe"},
            "in.jsonl:2: a solution holds <answer>Yes</answer> or <answer>No</answer>; found 'maybe'",
        ),
        ({"id": 1, "completion": None, "solution": SOLUTION}, "in.jsonl:2: completion and solution are texts; found NoneType and str"),
    ],
)
def test_a_bad_row_ends_with_one_line_and_no_output(tmp_path, capsys, row, message):
    source = lines(tmp_path / "in.jsonl", {"id": 0, "completion": GOLD, "solution": SOLUTION}, row)
    assert main(["score", "--input", source, "--output", str(tmp_path / "out.jsonl"), "--preset", "paper"]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_score_writes_into_a_pipe_and_leaves_devices_alone(tmp_path):
    rows = [{"id": 1, "completion": GOLD, "solution": SOLUTION}]
    command = f"cat {lines(tmp_path / 'in.jsonl', *rows)} | {sys.executable} -m iadr1.cli score --input /dev/stdin --output /dev/stdout --preset paper"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, json.loads(done.stdout)["total"]) == (0, 4.0)
    assert Path("/dev/stdout").is_symlink()


def test_missing_files_are_named(tmp_path, capsys):
    assert main(["score", "--input", "none.jsonl", "--output", str(tmp_path / "o"), "--preset", "paper"]) == 1
    assert main(["report", "none.jsonl"]) == 1
    assert main(["parity", "none.json"]) == 1
    assert capsys.readouterr().err.count("no such file") == 3


def test_an_output_that_cannot_be_written_is_named(tmp_path, capsys):
    source = lines(tmp_path / "in.jsonl", {"id": 0, "completion": GOLD, "solution": SOLUTION})
    assert main(["score", "--input", source, "--output", f"{source}/out.jsonl", "--preset", "paper"]) == 1
    assert capsys.readouterr().err.startswith("iadr1: ")


def test_an_unknown_preset_is_a_usage_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["score", "--input", "a", "--output", "b", "--preset", "best"])
    assert exit.value.code == 2
    assert "choose from" in capsys.readouterr().err


def test_report_prints_every_model_and_the_comparison(capsys):
    assert main(["report", PREDICTIONS, "--compare", "pa_sft", "sc_grpo"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("base", "pa_sft", "sc_grpo", "over 2 seeds", "McNemar p", "hardest third"))


def test_report_forms(capsys):
    assert main(["report", PREDICTIONS, "--json", "--compare", "pa_sft", "sc_grpo"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 2 and set(found["models"]) == {"base", "pa_sft", "sc_grpo"} and found["comparison"]["first"] == "pa_sft"
    assert main(["report", PREDICTIONS, "--markdown"]) == 0
    text = capsys.readouterr().out
    assert "| bottle |" in text and all(rate in text for rate in ("macro balanced accuracy", "overkill", "escape", "MCC", "truncated"))
    assert main(["report", PREDICTIONS, "--csv"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[:2] == ["# base", ",Anomaly Detection,Average"] and rows[2].startswith("mvtec,55.") and rows[4].startswith("Average,")


def test_the_same_file_twice_is_refused(capsys):
    assert main(["report", PREDICTIONS, PREDICTIONS]) == 1
    assert "Give each predictions file once" in capsys.readouterr().err


def test_parity_shows_ours_beside_the_paper(tmp_path, capsys):
    main(["report", PREDICTIONS, "--json"])
    (tmp_path / "report.json").write_text(capsys.readouterr().out)
    assert main(["parity", str(tmp_path / "report.json"), "--backbone", "Qwen2.5-VL-3B"]) == 0
    text = capsys.readouterr().out
    assert "paper (Qwen2.5-VL-3B)" in text and "[1] all sources: not the complete MVTec AD test set" in text
    assert main(["parity", str(tmp_path / "report.json"), "--backbone", "gpt"]) == 1


def test_explain_shows_reading_and_rewards(capsys):
    assert main(["explain", GOLD.replace("A line.", "This is a scratch."), "--solution", SOLUTION]) == 0
    text = capsys.readouterr().out
    assert "status     ok" in text and "concludes that there is a fault, as the answer" in text
    assert "'top left' is top left on a 3 x 3 grid" in text and "scratch (scratch, surface anomalies)" in text
    assert text.splitlines()[-1].split() == ["strict", "1.00", "1.00", "1.00", "1.00", "4.00"]
    assert main(["explain", "It looks fine", "--free"]) == 0
    assert "unreadable" in capsys.readouterr().out


def test_the_command_starts_without_torch_and_numpy_in_under_0_3_s():
    program = "import sys; from iadr1.cli import main; main(['explain', '<think>a</think><answer>No</answer>', '--solution', 'No'])\n"
    program += "sys.exit(sorted({'torch', 'numpy', 'scipy', 'transformers', 'pandas'} & set(sys.modules)) or 0)"
    before = os.times()
    done = subprocess.run([sys.executable, "-S", "-c", program], check=False, capture_output=True, text=True, env=_paths())
    assert (done.returncode, done.stderr) == (0, "")
    after = os.times()
    assert (after.children_user + after.children_system) - (before.children_user + before.children_system) < 0.3


def _paths():
    # Without site (-S) no start-up hook of the environment is measured; the packages are found by path.
    import yaml

    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(yaml.__file__).parents[1])])}


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m iadr1.cli report {PREDICTIONS} --json | head -1"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_help_names_every_command(capsys):
    start = time.process_time()
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("score", "report", "parity", "explain"))
    assert time.process_time() - start < 0.3
