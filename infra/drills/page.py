"""docs/drills.md: every drill with its outcome, as it was seen."""

import re
from collections.abc import Sequence

from iadr1.report_tables import table
from infra.drills.questions import Outcome
from infra.drills.table import DRILLS

LONGEST = 200
HELD = "yes"
HEAD = """\
# Fault drills

`make drill` disturbs releases on purpose, on the services of `make stack` (PostgreSQL, MLflow, Prefect and an S3 server as processes of this
machine), and writes this page. `python -m infra.drills --only NAME` runs one drill and writes its line, `--list` names them.

Each drill begins with a copy of a small project that has been released once, as it was before the stage that is disturbed. Nothing is simulated
inside the project's own code: processes get SIGKILL, S3 and MLflow are reached through a proxy that resets connections, answers errors or does not
answer, the full disk is a small mount, and the clock is moved by libfaketime. A waiting time of boto's is shortened where the drill would only wait
for it. After each drill three questions are asked, from the services' own databases and from the bytes of the bucket:

- **live**: does every alias lead to a version whose files are all, byte for byte, as they were registered?
- **kept**: is every run, metric, version, entry of the history and object that was recorded before still there?
- **next run**: does `make run` end with exit code 0, and with the same bytes of data, models, predictions and reports as a release that nothing
  disturbed?
"""


COLUMNS = ("drill", "what is broken", "what a person reads", "live", "kept", "next run", "seconds", "commit")


def page(outcomes: Sequence[Outcome], commit: str, before: str = "") -> str:
    """The page as Markdown, of drills at a commit; one without an outcome is as the page had it before."""
    rows = _rows(before) | {one.drill.name: _row(one, commit) for one in outcomes}
    found = [rows.get(drill.name, [drill.name, drill.breaks, "not run", *[""] * 5]) for drill in DRILLS]
    held = sum(row[3:6] == [HELD] * 3 for row in found)
    return f"{HEAD}\n{table(COLUMNS, found)}\n{held} of {len(DRILLS)} held.\n"


def _rows(text: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row for row in rows if len(row) == len(COLUMNS)}


def _row(found: Outcome, commit: str) -> list[str]:
    answers = [_mark(wrong) for wrong in (found.live, found.kept, found.next_run)]
    return [found.drill.name, found.drill.breaks, _told(found.said), *answers, f"{found.seconds:.0f}", commit]


def _told(said: str) -> str:
    """A message as it fits into a cell: without paths and ports of the machine that drew the table."""
    plain = re.sub(r"/\S*/(project|stack)/", "…/", re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:…", said)).replace("|", "/")
    return plain if len(plain) <= LONGEST else f"{plain[:LONGEST]}…"


def _mark(wrong: Sequence[str]) -> str:
    return HELD if not wrong else f"**no**: {_told(wrong[0])}"
