"""A command as a Prefect task: its output in the log and on the terminal, its exit code as the result, and its whole process tree ended with the flow."""

import sys
from collections.abc import Sequence
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows import processes
from flows.processes import CommandFailed


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
def run_command(name: str, command: Sequence[str], expected: Sequence[int] = (0,)) -> processes.Ended:
    """Run `python -m ...`; raises CommandFailed for any other exit code than those expected."""
    ended = processes.run([sys.executable, "-m", *command], log=get_run_logger().info, terminal=sys.stdout.buffer)
    if ended.code not in expected:
        said = [line for line in ended.lines if line.strip()]
        raise CommandFailed(said[-1] if said else f"{name} ended without a word", ended.code)
    return ended


def beside(pipeline: Path) -> list[str]:
    """The option that names the parameters of a pipeline."""
    return ["--params", str(pipeline.with_name("params.yaml"))]
