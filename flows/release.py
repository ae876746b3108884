"""The whole chain as one flow: every stage of the DVC graph as a Prefect task; a stage that is up to date is not started.

Evaluations run side by side, one for each GPU, or as many as $IADR1_EVALUATIONS says.

python -m flows.release [--experiment NAME --data FOLDER]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal
from prefect.states import Completed

from flows import dvc, processes
from flows.evaluations import slots
from flows.lock import alone
from flows.processes import CommandFailed

# Only fetching can fail for reasons that pass by themselves.
RETRIES = {"fetch": 2}
STOPPED = 130
SAID = {"ran": "done", "restored": "taken from the run cache", "unchanged": "up to date"}
NO_OTHERS: Mapping[str, int] = MappingProxyType({})
STATE_NAMES = {"ran": "Completed", "restored": "Restored", "unchanged": "UpToDate"}


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
def run_stage(pipeline: str, stage: str, must_run: bool, gpus: str | None = None) -> Any:
    """One stage; its state says whether it ran, came from the run cache or was up to date. On `gpus` it is one of several: its output is in the log."""
    started = time.monotonic()
    if must_run:
        show(f"{stage} ...")
        outcome = _run(pipeline, stage, gpus)
    else:
        outcome = "unchanged"
    took = f"{time.monotonic() - started:.0f} s" if must_run else ""
    show(f"{stage:<24} {SAID[outcome]:<12} {took}".rstrip())
    return Completed(name=STATE_NAMES[outcome], message=outcome)


def _run(pipeline: str, stage: str, gpus: str | None) -> dvc.Outcome:
    log = get_run_logger().info
    if gpus is None:
        return dvc.run_stage(Path(pipeline), stage, log=log, terminal=sys.stdout.buffer)
    own = {"CUDA_VISIBLE_DEVICES": gpus} if gpus else {}
    with Path(os.devnull).open("wb") as nowhere:
        return dvc.run_stage(Path(pipeline), stage, log=log, terminal=nowhere, environment=own)


@flow(name="release", persist_result=False)
def release(experiment: str | None = None, data: str | None = None) -> None:
    """Bring every stage up to date, and leave the summary as an artifact; raises Busy where another release of the project runs."""
    with alone(experiment or "root"):
        pipeline = pipeline_of(experiment, data)
        plan = dvc.plan(pipeline)
        outcomes: dict[str, str] = {}
        try:
            for _, stages in groupby(plan.upstream, key=kind_of):
                ran = frozenset(name for name, outcome in outcomes.items() if outcome != "unchanged")
                one_kind([(stage, plan.must_run(stage, ran)) for stage in stages], pipeline, outcomes)
        finally:
            create_markdown_artifact(key="release-summary", markdown=summary(experiment, outcomes))


def kind_of(stage: str) -> str:
    """The name of a stage, without what tells it from the others of its matrix."""
    return stage.partition("@")[0]


def one_kind(stages: Sequence[tuple[str, bool]], pipeline: Path, outcomes: dict[str, str]) -> None:
    """Run a stage, or the stages of a matrix side by side where there are slots for several; `outcomes` is told how each ended."""
    places = slots()
    due = sum(must_run for _, must_run in stages)
    if len(places) == 1 or due < 2:
        for stage, must_run in stages:
            note(outcomes, stage, _named(stage)(str(pipeline), stage, must_run, return_state=True))
        return
    open_release(pipeline)
    states = side_by_side(stages, pipeline, places)
    outcomes |= {stage: _outcome(state) for stage, state in states.items()}
    for stage, state in states.items():
        note(outcomes, stage, state)


def side_by_side(stages: Sequence[tuple[str, bool]], pipeline: Path, places: Sequence[str]) -> dict[str, Any]:
    """Run the stages, as many at a time as there are places; one that fails does not stop the others. Their final states."""
    free: SimpleQueue[str] = SimpleQueue()
    futures: dict[str, Any] = {}
    for place in places:
        free.put(place)
    with processes.ended_together():
        for stage, must_run in stages:
            place = free.get()
            futures[stage] = _named(stage).submit(str(pipeline), stage, must_run, place)
            futures[stage].add_done_callback(partial(_is_free, free, place))
        for future in futures.values():
            future.wait()
    return {stage: future.state for stage, future in futures.items()}


def _is_free(free: "SimpleQueue[str]", place: str, _future: Any) -> None:
    free.put(place)


def _named(stage: str) -> Any:
    return run_stage.with_options(name=stage, retries=RETRIES.get(stage, 0))


def note(outcomes: dict[str, str], stage: str, state: Any) -> None:
    """Note how a stage has ended; raises what it has failed with."""
    outcomes[stage] = _outcome(state)
    if not state.is_completed():
        state.result()


def _outcome(state: Any) -> str:
    return (state.message or "") if state.is_completed() else "failed"


def open_release(pipeline: Path) -> None:
    """Make the release's run in MLflow: stages that start side by side would each make one."""
    command = [sys.executable, "-m", "tasks._release", "--params", str(pipeline.with_name("params.yaml"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        get_run_logger().warning(done.stderr.strip())


def pipeline_of(experiment: str | None, data: str | None) -> Path:
    """The dvc.yaml to run: the project's own, or that of an experiment, which is composed first."""
    if experiment is None:
        if data is not None:
            raise CommandFailed(f"DATA={data} needs an experiment that reads it: make run EXPERIMENT=real DATA={data}", 2)
        return Path("dvc.yaml")
    command = [sys.executable, "-m", "tasks._experiment", experiment, *(("--data", data) if data else ())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandFailed(done.stderr.strip(), done.returncode)
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
    stop_orderly()
    code = exit_code(lambda: release(experiment, given.data or None))
    if code == 0:
        show(ending(experiment))
    sys.exit(code)


def stop_orderly() -> None:
    """Let a signal end the flow as Ctrl-C does: that also stops Prefect's embedded server, which would be left behind."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def exit_code(run: Callable[[], Any], own: Mapping[str, int] = NO_OTHERS) -> int:
    """The exit code of `run`, after telling in one line what ended it; `own` gives codes to names of the state that it returns."""
    try:
        state = run()
    except dvc.StageFailed as failure:
        return told(f"failed: {failure.stage}\n{failure}", 1)
    except dvc.DvcError as error:
        return told(str(error), 1)
    except CommandFailed as error:
        return told(str(error), error.code)
    except (KeyboardInterrupt, TerminationSignal):
        return told("stopped; run again to go on where it stopped", STOPPED)
    code = own.get(getattr(state, "name", None) or "", 0)
    return told(state.message, code) if code else 0


def settled(state: Any, *own: str) -> Any:
    """The final state of a flow, when it has completed or has one of its `own` names; else raises what it has failed with."""
    if state.name not in own:
        state.result()
    return state


def told(line: str, code: int) -> int:
    """The code, after the line has been printed as an error."""
    print(line, file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    main()
