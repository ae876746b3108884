"""Looks after the live model: asks it about a new batch of images, or again about the test sets, and opens a retrain when something has drifted.

python -m flows.watch [--images FOLDER --labels FILE.csv --reference FILE.jsonl] [--experiment NAME --data FOLDER]
"""

import argparse
import json
import sys
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.deployments import run_deployment
from prefect.events import emit_event
from prefect.runtime import deployment
from prefect.states import Completed

from flows import release
from flows.commands import beside, run_command
from flows.retrain import retrain

DRIFTED = 3
EVENT, MODEL = "iadr1.drift", "iadr1.model.live"
RETRAIN = "retrain/retrain"


@flow(name="watch", persist_result=False)
def watch(
    images: str | None = None,
    labels: str | None = None,
    reference: str | None = None,
    experiment: str | None = None,
    data: str | None = None,
) -> Any:
    """Watch once; the state is Drift with what has drifted, or Completed. Fails where it cannot be decided."""
    pipeline = release.pipeline_of(experiment, data)
    options = {"--labels": labels, "--reference": reference}
    told = [word for option, value in options.items() if value for word in (option, value)]
    command = ["tasks._watch", *([images] if images else []), *told, *beside(pipeline)]
    ended = run_command("watch", command, expected=(0, DRIFTED))
    reports = release.reports_of(experiment)
    found = json.loads((reports / "watch.json").read_text(encoding="utf-8"))
    create_markdown_artifact(key="watch", markdown=(reports / "watch.md").read_text(encoding="utf-8"))
    if ended.code != DRIFTED:
        return Completed(message=found["reason"])
    emit_event(EVENT, resource={"prefect.resource.id": MODEL, "iadr1.model": found["model"]}, payload=found)
    open_retrain(experiment, data)
    return Completed(name="Drift", message=found["reason"])


def open_retrain(experiment: str | None, data: str | None) -> None:
    """Start the retrain that is deployed beside a deployed watch; else retrain here and now."""
    told: dict[str, Any] = {"experiment": experiment, "data": data, "reason": "drift"}
    if deployment.id:
        run_deployment(RETRAIN, parameters=told, timeout=0, as_subflow=False)
    else:
        retrain(**told)


def main() -> None:
    """Run the flow from the command line; exit code 3 when something has drifted, the others are those of flows.release."""
    parser = argparse.ArgumentParser("python -m flows.watch", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--images", metavar="FOLDER", help="a new batch of images, or a file of samples (default: the test sets)")
    parser.add_argument("--labels", metavar="FILE.csv", help="labels that have come back: image,anomalous")
    parser.add_argument("--reference", metavar="FILE.jsonl", help="observations to compare with")
    parser.add_argument("--experiment", metavar="NAME", help="an experiment of experiments/NAME.yaml")
    parser.add_argument("--data", metavar="FOLDER", help="the images that the experiment reads")
    given = {name: value or None for name, value in vars(parser.parse_args()).items()}
    release.stop_orderly()
    run: Any = watch
    sys.exit(release.exit_code(lambda: release.settled(run(**given, return_state=True), "Drift"), {"Drift": DRIFTED}))


if __name__ == "__main__":
    main()
