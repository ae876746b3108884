"""A release when there is something new to learn from: images, parameters or code that DVC has not seen. Skipped when nothing has changed.

On a schedule, or when an event says that images have arrived or that the live model drifts (prefect.yaml, docs/flows.md).

python -m flows.retrain [--experiment NAME --data FOLDER]
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.states import Completed

from flows import dvc, release
from flows.lock import Busy
from flows.processes import CommandFailed

NOTHING = "skipped: nothing changed"
OF_DRIFT = "; trained on the same images, code and parameters the model would be the same: add images of what is new"


@flow(name="retrain", persist_result=False)
def retrain(experiment: str | None = None, data: str | None = None, reason: str = "schedule") -> Any:
    """Release what has changed; the state is Skipped with the reason, or Completed with what was registered and whether the gates let it through."""
    pipeline = release.pipeline_of(experiment, data)
    look_again(pipeline)
    due = dvc.plan(pipeline).due
    if not due:
        return skipped(NOTHING + (OF_DRIFT if reason == "drift" else ""))
    changed = f"{reason}: changed since the last release: {', '.join(due)}"
    get_run_logger().info(changed)
    release.show(changed)
    try:
        release.release(experiment, data)
    except Busy as busy:
        return skipped(f"skipped: {busy}")
    message = registered(experiment)
    release.show(message)
    return Completed(message=message)


def skipped(why: str) -> Any:
    """The state of a run that had nothing to do."""
    release.show(why)
    return Completed(name="Skipped", message=why)


def look_again(pipeline: Path) -> None:
    """Run the stages whose sources the graph does not state; what they find as it was changes nothing downstream."""
    command = [sys.executable, "-m", "tasks._unwatched", str(pipeline)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandFailed(done.stderr.strip(), done.returncode)
    for stage in done.stdout.split():
        dvc.run_stage(pipeline, stage, log=get_run_logger().info, terminal=sys.stdout.buffer, force=True)


def registered(experiment: str | None) -> str:
    """What the release has registered, and what the gates said."""
    summary = release.reports_of(experiment) / "summary.json"
    if not summary.is_file():
        return "released"
    return str(json.loads(summary.read_text(encoding="utf-8")).get("registered", {}).get("message", "released"))


def main() -> None:
    """Run the flow from the command line; the exit codes are those of flows.release."""
    parser = argparse.ArgumentParser("python -m flows.retrain", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--experiment", metavar="NAME", help="an experiment of experiments/NAME.yaml")
    parser.add_argument("--data", metavar="FOLDER", help="the images that the experiment reads")
    given = parser.parse_args()
    release.stop_orderly()
    sys.exit(release.exit_code(lambda: retrain(given.experiment or None, given.data or None, reason="a person")))


if __name__ == "__main__":
    main()
