"""Old versions of the registered model on a benchmark that came later: one task a version, and a table of versions by data sets at the end.

python -m flows.backfill [1-5,8] [--experiment NAME --data FOLDER] [--name iad-r1]
"""

import argparse
import sys
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows import dvc, release
from flows.commands import beside, run_command

BENCHMARK = ("fetch", "prepare")


@flow(name="backfill", persist_result=False)
def backfill(versions: str | None = None, experiment: str | None = None, data: str | None = None, name: str | None = None) -> None:
    """Prepare the benchmark, evaluate the versions that have not been, and leave the table as an artifact."""
    pipeline = release.pipeline_of(experiment, data)
    prepare(pipeline)
    model = ["--name", name] if name else []
    listed = run_command("versions", ["tasks._backfill", "versions", *([versions] if versions else []), *model, *beside(pipeline)])
    for version in (line.strip() for line in listed.lines):
        if version.isdecimal():
            run_command(f"version {version}", ["tasks._backfill", "evaluate", version, *model, *beside(pipeline)])
    run_command("table", ["tasks._backfill", "table", *beside(pipeline)])
    page = release.reports_of(experiment) / "backfill" / "table.md"
    create_markdown_artifact(key="backfill", markdown=page.read_text(encoding="utf-8"))


def prepare(pipeline: Path) -> None:
    """Bring the benchmark's own stages up to date."""
    for stage in BENCHMARK:
        dvc.run_stage(pipeline, stage, log=get_run_logger().info, terminal=sys.stdout.buffer)


def main() -> None:
    """Run the flow from the command line; the exit codes are those of flows.release."""
    parser = argparse.ArgumentParser("python -m flows.backfill", description=str(__doc__).partition("\n")[0])
    parser.add_argument("versions", nargs="?", metavar="1-5,8", help="(default: every registered version)")
    parser.add_argument("--experiment", metavar="NAME", help="the experiment whose data sets are the benchmark")
    parser.add_argument("--data", metavar="FOLDER", help="the images that the experiment reads")
    parser.add_argument("--name", metavar="NAME", help="the registered model (default: register.name)")
    given = {name: value or None for name, value in vars(parser.parse_args()).items()}
    release.stop_orderly()
    sys.exit(release.exit_code(lambda: backfill(**given)))


if __name__ == "__main__":
    main()
