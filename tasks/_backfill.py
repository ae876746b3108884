"""Old versions of the registered model on a benchmark that came later: predictions of each, and a table of versions by data sets.

python -m tasks._backfill versions [1-5,8]    the registered versions that these numbers name (default: all), one a line
python -m tasks._backfill evaluate VERSION    asks a version about the prepared test sets; writes reports/backfill/VERSION/DATASET-SHOTS.jsonl
python -m tasks._backfill table               compares what is there: reports/backfill/table.md and table.json

--params FILE names the parameters (params.yaml) and so the benchmark, --name the registered model. Run again after a kill: nothing is asked twice.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iadr1.errors import Iadr1Error, ModelError, ParamsError
from iadr1.params import Params, load
from iadr1.registry import registered
from iadr1.registry.store import Store
from iadr1.report import EvalReport, ModelReport, read_predictions, write_predictions
from iadr1.report_tables import table
from iadr1.samples import read_samples
from tasks._environment import switch_telemetry_off
from tasks._run import Workspace, fresh_file
from tasks._versions import exam_of, predictions_of

FOLDER = "backfill"


def versions(name: str, asked: str | None) -> list[int]:
    """The numbers of the registered versions that `asked` names; raises ModelError where one is not there."""
    there = sorted(version.number for version in Store.at(name).versions())
    if not there:
        raise ModelError(f"the registry has no version of {name}. Register one with `make run`, or set MLFLOW_TRACKING_URI to your server.")
    if not asked:
        return there
    chosen = numbers(asked)
    if missing := sorted(chosen - set(there)):
        raise ModelError(f"{name} has no version {', '.join(map(str, missing))}; there are {', '.join(map(str, there))}.")
    return sorted(chosen)


def numbers(text: str) -> set[int]:
    """The numbers of a list of numbers and ranges, such as 1-5,8; raises ParamsError."""
    found: set[int] = set()
    for part in text.split(","):
        form = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part, re.ASCII)
        if form is None:
            raise ParamsError(f"versions {text!r}: write numbers and ranges, such as 1-5,8.")
        found |= set(range(int(form[1]), int(form[2] or form[1]) + 1))
    return found


def evaluate(params: Params, work: Workspace, name: str, version: int) -> None:
    """Ask a version about every test set, and write its predictions."""
    found = registered(f"models:/{name}/{version}")
    for dataset, shots in _parts(params):
        samples = read_samples(work.prepared / "test" / f"{dataset}.jsonl")
        exam = exam_of(found, params, work, name=f"{dataset}-{shots}", samples=samples, shots=shots)
        path = work.reports / FOLDER / str(version) / f"{dataset}-{shots}.jsonl"
        write_predictions(path, predictions_of(found, exam, name=f"{name}-{version}"))
        print(f"backfill: {name} version {version}: {len(samples)} predictions in {path}", flush=True)


def compared(params: Params, work: Workspace) -> dict[int, ModelReport]:
    """What each version has reached on the test sets as they are now; predictions about other samples are left out."""
    found: dict[int, ModelReport] = {}
    for folder in sorted((work.reports / FOLDER).glob("[0-9]*"), key=lambda folder: int(folder.name)):
        datasets = {}
        for dataset, shots in _parts(params):
            path, samples = folder / f"{dataset}-{shots}.jsonl", work.prepared / "test" / f"{dataset}.jsonl"
            if not path.is_file():
                continue
            predictions = read_predictions(path)
            if [one.sample_id for one in predictions] != [sample.id for sample in read_samples(samples)]:
                print(f"backfill: {path} is about other samples than {samples} and left out. Evaluate the version again.", file=sys.stderr)
                continue
            (model,) = EvalReport.of(predictions, grid=params.prepare.grid).models.values()
            datasets[f"{dataset}-{shots}"] = model.datasets[predictions[0].dataset]
        if datasets:
            found[int(folder.name)] = ModelReport(datasets)
    return found


def told(found: dict[int, ModelReport]) -> str:
    """The table: versions down, data sets across."""
    if not found:
        raise ModelError("no version has been evaluated on these test sets. Begin with `python -m tasks._backfill evaluate VERSION`.")
    names = sorted({name for model in found.values() for name in model.datasets})
    rows = [
        [
            str(version),
            *(_cell(model.datasets[name].to_dict(name, 1000)) if name in model.datasets else "–" for name in names),
            _mean(model, names),
        ]
        for version, model in found.items()
    ]
    return table(["version", *names, "mean"], rows) + "\nBalanced accuracy in percent [95 % interval]; – : not evaluated.\n"


def _mean(model: ModelReport, names: list[str]) -> str:
    # Of other data sets it would not be comparable.
    mean = model.mean_balanced_accuracy
    return "–" if mean is None or model.datasets.keys() != set(names) else f"{mean:.1f}"


def _cell(entry: dict[str, Any]) -> str:
    if entry["balanced_accuracy"] is None:
        return "–"
    low, high = entry["balanced_accuracy_ci"]
    return f"{entry['balanced_accuracy']:.1f} [{low:.1f}, {high:.1f}]"


def _parts(params: Params) -> Iterator[tuple[str, int]]:
    yield from ((dataset, shots) for dataset in params.evaluate.datasets for shots in params.evaluate.shots)


def _write_table(params: Params, work: Workspace) -> None:
    found = compared(params, work)
    page = told(found)
    plain = {version: EvalReport({"version": model}).to_dict()["models"]["version"] for version, model in found.items()}
    with fresh_file(work.reports / FOLDER / "table.json") as file:
        file.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    with fresh_file(work.reports / FOLDER / "table.md") as file:
        file.write_text(page, encoding="utf-8")
    print(page, end="")


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser("python -m tasks._backfill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("versions").add_argument("asked", nargs="?", metavar="1-5,8")
    commands.add_parser("evaluate").add_argument("version", type=int, metavar="VERSION")
    commands.add_parser("table")
    for command in commands.choices.values():
        command.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE")
        command.add_argument("--name", metavar="NAME", help="the registered model (default: register.name)")
    given = parser.parse_args()
    switch_telemetry_off()
    try:
        params = load(given.params)
        work, name = Workspace.of(params, given.params), given.name or params.register.name
        if given.command == "versions":
            print("\n".join(map(str, versions(name, given.asked))))
        elif given.command == "evaluate":
            evaluate(params, work, name, given.version)
        else:
            _write_table(params, work)
    except Iadr1Error as error:
        sys.exit(f"backfill: {error}")


if __name__ == "__main__":
    main()
