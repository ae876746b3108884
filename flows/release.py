"""The whole chain as one flow: every stage of the DVC graph as a Prefect task; a stage that is up to date is not started.

python -m flows.release [--experiment NAME --data FOLDER]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# A person reads the stages' own output; Prefect's records go to its server.
if __name__ == "__main__":
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal
from prefect.states import Completed

from flows import dvc

# Only fetching can fail for reasons that pass by themselves.
RETRIES = {"fetch": 2}
STOPPED = 130
SAID = {"ran": "done", "restored": "taken from the run cache", "unchanged": "up to date"}
STATE_NAMES = {"ran": "Completed", "restored": "Restored", "unchanged": "UpToDate"}


class CannotStart(Exception):
    """What was asked for cannot be run; `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def worth_another_try(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a failed stage did not say itself what a person has to mend."""
    failure = state.result(raise_on_failure=False)
    return not (isinstance(failure, dvc.StageFailed) and failure.explained)


@task(
    task_run_name="{stage}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=worth_another_try,
    retry_delay_seconds=[5, 30],
)
def run_stage(pipeline: str, stage: str, must_run: bool) -> Any:
    """One stage; its state says whether it ran, came from the run cache or was up to date."""
    started = time.monotonic()
    if must_run:
        show(f"{stage} ...")
        outcome = dvc.run_stage(Path(pipeline), stage, log=get_run_logger().info, terminal=sys.stdout.buffer)
    else:
        outcome = "unchanged"
    took = f"{time.monotonic() - started:.0f} s" if must_run else ""
    show(f"{stage:<24} {SAID[outcome]:<12} {took}".rstrip())
    return Completed(name=STATE_NAMES[outcome], message=outcome)


@flow(name="release", persist_result=False)
def release(experiment: str | None = None, data: str | None = None) -> None:
    """Bring every stage up to date, and leave the summary as an artifact."""
    pipeline = pipeline_of(experiment, data)
    plan = dvc.plan(pipeline)
    outcomes: dict[str, str] = {}
    try:
        for stage in plan.upstream:
            ran = frozenset(name for name, outcome in outcomes.items() if outcome != "unchanged")
            stage_task = run_stage.with_options(name=stage, retries=RETRIES.get(stage, 0))
            state = stage_task(str(pipeline), stage, plan.must_run(stage, ran), return_state=True)
            outcomes[stage] = state.message or ""
            if not state.is_completed():
                outcomes[stage] = "failed"
                state.result()
    finally:
        create_markdown_artifact(key="release-summary", markdown=summary(experiment, outcomes))


def pipeline_of(experiment: str | None, data: str | None) -> Path:
    """The dvc.yaml to run: the project's own, or that of an experiment, which is composed first."""
    if experiment is None:
        if data is not None:
            raise CannotStart(f"DATA={data} needs an experiment that reads it: make run EXPERIMENT=real DATA={data}", 2)
        return Path("dvc.yaml")
    command = [sys.executable, "-m", "tasks._experiment", experiment, *(("--data", data) if data else ())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotStart(done.stderr.strip(), done.returncode)
    return Path(done.stdout.strip())


def summary(experiment: str | None, outcomes: dict[str, str]) -> str:
    """The flow's page: what each stage did, and the report's table when there is one."""
    table = "\n".join(["| stage | |", "|---|---|", *(f"| {stage} | {SAID.get(outcome, outcome)} |" for stage, outcome in outcomes.items())])
    report = reports_of(experiment) / "summary.md"
    return f"{table}\n\n{report.read_text(encoding='utf-8')}" if report.is_file() else table


def reports_of(experiment: str | None) -> Path:
    """Where the reports of a run are."""
    return Path("reports", experiment) if experiment else Path("reports")


def ending(experiment: str | None) -> str:
    """What a person wants to know at the end: the table, where everything is, and what was registered."""
    reports = reports_of(experiment)
    report = reports / "summary.md"
    registered = json.loads((reports / "summary.json").read_text(encoding="utf-8")).get("registered", {})
    store = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow = (
        store
        if store and store.startswith("http")
        else f"{Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {store or 'sqlite:///mlflow.db'}"
    )
    return "\n".join(
        (
            report.read_text(encoding="utf-8").strip(),
            "",
            f"Report      {reports / 'report.html'}, {report} and {reports / 'summary.json'}",
            f"Runs        {mlflow}",
            f"Registered  {registered.get('message', 'nothing')}",
        )
    )


def show(line: str) -> None:
    """Print a line at once, in its place among the stages' own output."""
    print(line, flush=True)


def main() -> None:
    """Run the flow from the command line; exit 1 when a stage failed, 2 for a wrong command, 130 when stopped."""
    parser = argparse.ArgumentParser("python -m flows.release", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--experiment", metavar="NAME", help="an experiment of experiments/NAME.yaml")
    parser.add_argument("--data", metavar="FOLDER", help="the images that the experiment reads")
    given = parser.parse_args()
    experiment = given.experiment or None
    for number in (signal.SIGTERM, signal.SIGHUP):
        # An orderly end also stops Prefect's embedded server; without it a signal would leave the server behind.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    code = exit_code(lambda: release(experiment, given.data or None))
    if code == 0:
        show(ending(experiment))
    sys.exit(code)


def exit_code(run: Callable[[], Any]) -> int:
    """The exit code of `run`, after telling in one line what ended it."""
    try:
        run()
    except dvc.StageFailed as failure:
        return told(f"failed: {failure.stage}\n{failure}", 1)
    except dvc.DvcError as error:
        return told(str(error), 1)
    except CannotStart as error:
        return told(str(error), error.code)
    except (KeyboardInterrupt, TerminationSignal):
        return told("stopped; run again to go on where it stopped", STOPPED)
    return 0


def told(line: str, code: int) -> int:
    """The code, after the line has been printed as an error."""
    print(line, file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    main()
