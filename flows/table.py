"""A table of the paper as one flow: the default run of every seed, the rows that differ from it, and our figures beside the paper's.

What is up to date is not started, and a killed run goes on where it stopped.

python -m flows.table 3 [--seeds 0,1,2] [--profile smoke]
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from prefect import flow

from flows import dvc
from flows.processes import CommandFailed
from flows.release import RETRIES, exit_code, kind_of, run_stage, show, stop_orderly


@dataclass(slots=True)
class Pace:
    """What stages have taken, by kind, and so about how long those take that are left."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def took(self, stage: str, seconds: float) -> None:
        """Note how long a stage has run."""
        self.seconds.setdefault(kind_of(stage), []).append(seconds)

    def told(self, left: Sequence[str]) -> str:
        """In words how long the stages take that are left; of a kind that has not run yet nothing is known."""
        known = [fmean(self.seconds[kind_of(stage)]) for stage in left if kind_of(stage) in self.seconds]
        minutes = f"{sum(known) / 60:.0f} min"
        return "" if not known else f", about {minutes}" if len(known) == len(left) else f", more than {minutes}"


@dataclass(slots=True)
class Progress:
    """One graph of the table while it runs: what has run, what cannot because something before it has failed, and why."""

    title: str
    plan: dvc.Plan
    ran: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    why: str = ""


@flow(name="table", persist_result=False)
def table(name: str, seeds: str, profile: str | None) -> dict[str, str]:
    """Bring every run of the table's grid up to date, seed by seed; of each run that has failed, the reason in its own words."""
    graphs = json.loads(command("compose", name, seeds, profile))
    plans = dvc.plans([Path(graph["pipeline"]) for graph in graphs])
    runs = [Progress(graph["title"], plan) for graph, plan in zip(graphs, plans, strict=True)]
    due = [(run, stage) for run, graph in zip(runs, graphs, strict=True) for stage in run.plan.due if stage not in graph["skip"]]
    show(f"{len(runs)} runs, {len(due)} stages to run")
    pace = Pace()
    for number, (run, stage) in enumerate(due, 1):
        show(f"\n[{number} of {len(due)}{pace.told([stage for _, stage in due[number - 1 :]])}] {run.title}")
        if run.lost & run.plan.upstream[stage]:
            show(f"{stage:<24} left out")
            run.lost |= {stage}
        else:
            one_stage(run, stage, pace)
    return {str(run.plan.pipeline): run.why for run in runs if run.why}


def one_stage(run: Progress, stage: str, pace: Pace) -> None:
    """Run one stage; where it says itself why it has failed (a training that collapses), the table goes on without it."""
    started = time.monotonic()
    named = run_stage.with_options(name=f"{run.title}: {stage}", retries=RETRIES.get(stage, 0))
    state = named(str(run.plan.pipeline), stage, run.plan.must_run(stage, run.ran), return_state=True)
    try:
        state.result()
    except dvc.StageFailed as failure:
        if not failure.explained:
            raise
        show(f"{stage:<24} failed")
        run.lost, run.why = run.lost | {stage}, str(failure)
        return
    if state.message == "ran":
        pace.took(stage, time.monotonic() - started)
    if state.message != "unchanged":
        run.ran |= {stage}


def command(verb: str, name: str, seeds: str, profile: str | None, *more: str) -> str:
    """What `python -m tasks._table` answers."""
    words = [sys.executable, "-m", "tasks._table", verb, name, "--seeds", seeds, *(("--profile", profile) if profile else ()), *more]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandFailed(done.stderr.strip(), done.returncode)
    return done.stdout


def main() -> None:
    """Run the flow from the command line; exit 1 when a stage failed, 2 for a wrong command, 130 when stopped."""
    parser = argparse.ArgumentParser("python -m flows.table", description=str(__doc__).partition("\n")[0])
    parser.add_argument("table", metavar="TABLE", help="a table of experiments/tables/TABLE.yaml")
    parser.add_argument("--seeds", default="0,1,2", metavar="0,1,2")
    parser.add_argument("--profile", metavar="NAME", help="an experiment of experiments/NAME.yaml whose keys all rows change too")
    given = parser.parse_args()
    stop_orderly()
    sys.exit(exit_code(lambda: told(given)))


def told(given: Any) -> None:
    """Run the table and print its page; raises StageFailed when not all of its runs could end."""
    asked = (given.table, given.seeds, given.profile or None)
    failed = table(*asked)
    show("\n" + command("show", *asked, "--failed", json.dumps(failed)))
    if failed:
        raise dvc.StageFailed("of the table's runs", "\n".join(f"{pipeline}: {why}" for pipeline, why in failed.items()), explained=True)


if __name__ == "__main__":
    main()
