"""`iadr1 doctor`: whether this machine can run the project, each finding with what to do about it."""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

HELP = "whether this machine can run the project, and what to do where it cannot"


def add_doctor(command: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    command.description = (
        "Looks at packages, GPU, disk, memory, DVC's remotes, MLflow, Prefect, telemetry, open addresses and secrets of the project in the working "
        "folder; changes nothing. The exit code is 1 when a finding is `fail`."
    )
    command.add_argument("--json", action="store_true", help="a list of objects: area, level (ok, warn, fail), found, fix")
    command.add_argument(
        "--deep", action="store_true", help="also load torch, compute on every device, and start the other parts (a minute)"
    )
    command.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from iadr1.doctor import findings
    from iadr1.doctor.finding import Place

    found = []
    for finding in findings(Place(Path.cwd(), os.environ), deep=options.deep):
        found.append(finding)
        if not options.json:
            print(f"{finding.level:<5} {finding.area:<10} {finding.found}", flush=True)
            if finding.fix:
                print(f"{'':<16} fix: {finding.fix}", flush=True)
    counts = {level: sum(finding.level == level for finding in found) for level in ("ok", "warn", "fail")}
    if options.json:
        print(json.dumps([asdict(finding) for finding in found], indent=1, ensure_ascii=False))
    else:
        unseen = "" if options.deep else "; torch and the servers' parts were not loaded: --deep does that"
        print(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} to mend{unseen}")
    return int(counts["fail"] > 0)
