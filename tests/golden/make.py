"""Recomputes the expected files beside it from the committed inputs. Run `python tests/golden/make.py` and read the difference before committing it.

completions.jsonl -> scores.<preset>.jsonl, readings.jsonl; predictions.jsonl -> report.json, comparison.json
"""

import json
from dataclasses import asdict
from pathlib import Path

from iadr1.comparison import Comparison
from iadr1.report import EvalReport, read_predictions
from iadr1.rewards import PRESETS
from iadr1.scoring import scored_lines
from iadr1.verdict import Verdict

HERE = Path(__file__).parent


def expected() -> dict[str, str]:
    """Every expected file by name."""
    rows = [json.loads(line) for line in (HERE / "completions.jsonl").read_text(encoding="utf-8").splitlines()]
    predictions = read_predictions(HERE / "predictions.jsonl")
    files = {
        f"scores.{name}.jsonl": "".join(f"{line}\n" for line in scored_lines(HERE / "completions.jsonl", preset=name)) for name in PRESETS
    }
    files["readings.jsonl"] = "".join(_reading(row) + "\n" for row in rows)
    files["report.json"] = EvalReport.of(predictions).to_json() + "\n"
    files["comparison.json"] = json.dumps(Comparison.of(predictions, "pa_sft", "sc_grpo").to_dict(), indent=1) + "\n"
    return files


def _reading(row: dict[str, str]) -> str:
    tagged, free = asdict(Verdict.parse(row["completion"])), asdict(Verdict.read(row["completion"]))
    return json.dumps(
        {"id": row["id"], "parse": tagged, "read": {"anomalous": free["anomalous"], "status": free["status"]}}, ensure_ascii=False
    )


if __name__ == "__main__":
    for name, text in expected().items():
        (HERE / name).write_text(text, encoding="utf-8")
