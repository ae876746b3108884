"""docs/drills.md: every drill with its outcome, as it was seen."""

import re
from collections.abc import Sequence

from iadr1.report_tables import table
from infra.drills.questions import Outcome
from infra.drills.table import DRILLS, Drill

LONGEST = 200
HEAD = """\
# Fault drills

`make drill` disturbs releases on purpose, on the services of `make stack` (PostgreSQL, MLflow, Prefect and an S3 server as processes of this
machine), and writes this page. `python -m infra.drills --only NAME` runs one drill, `--list` names them.

Each drill begins with a copy of a small project that has been released once, as it was before the stage that is disturbed. Nothing is simulated
inside the project's own code: processes get SIGKILL, S3 and MLflow are reached through a proxy that resets connections, answers errors or does not
answer, the full disk is a small mount, and the clock is moved by libfaketime. A waiting time of boto's is shortened where the drill would only wait
for it. After each drill three questions are asked, from the services' own databases and from the bytes of the bucket:

- **live**: does every alias lead to a version whose files are all, byte for byte, as they were registered?
- **kept**: is every run, metric, version, entry of the history and object that was recorded before still there?
- **next run**: does `make run` end with exit code 0, and with the same bytes of data, models, predictions and reports as a release that nothing
  disturbed?
"""


def page(outcomes: Sequence[Outcome], commit: str) -> str:
    """The page as Markdown, of drills at a commit; one without an outcome was not run."""
    found = {one.drill.name: one for one in outcomes}
    head = ["drill", "what is broken", "what a person reads", "live", "kept", "next run", "seconds"]
    rows = [_row(drill, found.get(drill.name)) for drill in DRILLS]
    minutes = sum(one.seconds for one in outcomes) / 60
    held = sum(one.passed for one in outcomes)
    return f"{HEAD}\n{table(head, rows)}\n{held} of the {len(outcomes)} that were run held, in {minutes:.0f} minutes, at commit {commit}.\n"


def _row(drill: Drill, found: Outcome | None) -> list[str]:
    if found is None:
        return [drill.name, drill.breaks, "not run", "", "", "", ""]
    return [
        drill.name,
        drill.breaks,
        _told(found.said),
        _mark(found.live),
        _mark(found.kept),
        _mark(found.next_run),
        f"{found.seconds:.0f}",
    ]


def _told(said: str) -> str:
    """A message as it fits into a cell: without paths and ports of the machine that drew the table."""
    plain = re.sub(r"/\S*/(project|stack)/", "…/", re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:…", said)).replace("|", "/")
    return plain if len(plain) <= LONGEST else f"{plain[:LONGEST]}…"


def _mark(wrong: Sequence[str]) -> str:
    return "yes" if not wrong else f"**no**: {_told(wrong[0])}"
