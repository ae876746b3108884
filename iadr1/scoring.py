"""Files of completions scored row by row, as `iadr1 score` does."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from iadr1.errors import DatasetError
from iadr1.rewards import sample_of_solution, score_json, scores

BATCH = 1000


def scored_lines(path: Path, *, preset: str, grid: int = 3) -> Iterator[str]:
    """The scores of a JSONL file of completions, as JSON lines in the same order."""
    if not path.exists() or path.is_dir():
        raise DatasetError(f'{path}: no such file; give a JSONL file of {{"id", "completion", "solution"}}.')
    with path.open(encoding="utf-8", errors="replace") as lines:
        numbered = enumerate(lines, 1)
        while batch := [(f"{path}:{number}", _row(line, f"{path}:{number}")) for number, line in islice(numbered, BATCH)]:
            samples = [sample_of_solution(row["solution"], id=source) for source, row in batch]
            found = scores([row["completion"] for _, row in batch], samples, preset=preset, grid=grid)
            yield from (score_json(row["id"], one) for (_, row), one in zip(batch, found, strict=True))


def _row(line: str, source: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{source}: not JSON ({error}). Each line is one object.") from error
    if not isinstance(row, dict) or not {"id", "completion", "solution"} <= row.keys():
        raise DatasetError(
            f'{source}: a row has "id", "completion" and "solution"; found {sorted(row) if isinstance(row, dict) else row!r}.'
        )
    if not isinstance(row["completion"], str) or not isinstance(row["solution"], str):
        raise DatasetError(
            f"{source}: completion and solution are texts; found {type(row['completion']).__name__} and {type(row['solution']).__name__}."
        )
    return row
