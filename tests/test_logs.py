"""What stages leave for machines: JSON lines beside the human output, no secret in either, and the hours and costs of what they used."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from iadr1.errors import ParamsError
from tasks import _costs
from tasks._costs import cost_of, newest_of_each_stage, total, used_since_last

ROOT = Path(__file__).parent.parent
STAGE = """
import logging, sys
from iadr1.errors import DatasetError, Stopped
from tasks._run import run_stage

def main(params, work):
    print("half a", end=" ")
    print("line, then one")
    logging.getLogger("somebody").warning("logged in with %s", "opensesame123")
    logging.getLogger("somebody").info("not told")
    {then}

main.__doc__ = __doc__
run_stage("prepare", main)
"""


def ran(folder: Path, then: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, object]]]:
    (folder / "stage.py").write_text(STAGE.replace("{then}", then))
    told = {**os.environ, "PYTHONPATH": str(ROOT), "STORE_PASSWORD": "opensesame123", **environment}
    command = [sys.executable, "stage.py", "--params", str(ROOT / "params.yaml")]
    done = subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True)
    file = folder / "log.jsonl"
    return done, [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


@pytest.mark.parametrize(
    "then, code, outcome, said",
    [
        ("pass", 0, "done", None),
        (
            "raise DatasetError('the store refuses opensesame123')",
            1,
            "failed",
            "prepare: the store refuses $STORE_PASSWORD",
        ),
        ("raise Stopped('stopped at step 3')", 143, "stopped", None),
        ("raise KeyError('opensesame123')", 1, "crashed", "KeyError: '$STORE_PASSWORD'"),
    ],
)
def test_a_stage_tells_how_it_went_and_no_secret(tmp_path, then, code, outcome, said):
    done, lines = ran(tmp_path, then, IADR1_LOG_JSON="log.jsonl")
    assert done.returncode == code
    assert "half a line, then one" in done.stdout
    assert "opensesame123" not in done.stdout + done.stderr + json.dumps(lines)
    assert [line["event"] for line in lines] == ["started", "said", "logged", "ended"]
    assert {line["stage"] for line in lines} == {"prepare"}
    assert lines[1]["message"] == "half a line, then one"
    assert (lines[2]["level"], lines[2]["message"]) == ("WARNING", "logged in with $STORE_PASSWORD")
    assert (lines[3]["outcome"], lines[3].get("message")) == (outcome, said)


def test_without_the_variable_nothing_is_written_and_logs_are_still_clean(tmp_path):
    done, lines = ran(tmp_path, "pass")
    assert (done.returncode, lines) == (0, [])
    assert done.stderr == "logged in with $STORE_PASSWORD\n"
    assert [path.name for path in tmp_path.iterdir()] == ["stage.py"]


def test_a_record_is_clean_wherever_it_goes(monkeypatch, caplog):
    from tasks import _logs

    before = logging.getLogRecordFactory()
    monkeypatch.setenv("HF_TOKEN", "opensesame123")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    try:
        _logs._redact_records()
        logging.getLogger("botocore").warning("header %(name)s", {"name": "Bearer opensesame123"})
    finally:
        logging.setLogRecordFactory(before)
    assert caplog.messages == ["header Bearer $HF_TOKEN"]


def test_hours_are_counted_once_and_priced_where_a_price_is_stated(monkeypatch):
    for variable in _costs.PRICES.values():
        monkeypatch.delenv(variable, raising=False)
    used_since_last()
    sum(range(2_000_000))
    first = used_since_last()
    assert set(first) == {"gpu_hours", "core_hours"} and 0 < first["core_hours"] * 3600 < 60 and first["gpu_hours"] == 0
    assert used_since_last()["core_hours"] < first["core_hours"]
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("IADR1_PRICE_CORE_HOUR", "0.05")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True, device_count=lambda: 2)))
    four = used_since_last()
    assert four["gpu_hours"] > 0 and four["cost"] == pytest.approx(0.05 * four["core_hours"])
    monkeypatch.setenv("IADR1_PRICE_GPU_HOUR", "2.5")
    assert cost_of({"gpu_hours": 4.0, "core_hours": 10.0}) == {"cost": pytest.approx(10.5)}
    monkeypatch.setenv("IADR1_PRICE_GPU_HOUR", "2,50 EUR")
    with pytest.raises(ParamsError, match=r"IADR1_PRICE_GPU_HOUR is '2,50 EUR': the price of an hour is a number, such as 2\.5\."):
        used_since_last()


def run(stage: str | None, start: int, status: str, **metrics: float) -> SimpleNamespace:
    tags = {"stage": stage} if stage else {}
    return SimpleNamespace(info=SimpleNamespace(start_time=start, status=status), data=SimpleNamespace(tags=tags, metrics=metrics))


def test_a_model_s_hours_are_those_of_what_made_it_and_a_release_s_all_that_it_used():
    runs = [
        run("pa_sft", 1, "FINISHED", gpu_hours=9.0, core_hours=1.0),  # of an earlier model
        run("pa_sft", 2, "FAILED", gpu_hours=1.0, core_hours=1.0),
        run("pa_sft", 3, "FINISHED", gpu_hours=4.0, core_hours=1.0, cost=8.0),
        run("sc_grpo", 4, "FINISHED", gpu_hours=5.0, core_hours=1.0, loss=3.0),
        run(None, 5, "FINISHED", gpu_hours=100.0),
    ]
    assert total(runs[:4]) == {"gpu_hours": 19.0, "core_hours": 4.0, "cost": 8.0}
    assert total(newest_of_each_stage(runs)) == {"gpu_hours": 9.0, "core_hours": 2.0, "cost": 8.0}
