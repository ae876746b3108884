"""A table of the paper: composes the runs of its grid, and prints our figures beside the paper's with what becomes of its claims.

python -m tasks._table compose 3 --seeds 0,1,2 [--profile smoke]    writes experiments/rows/…, prints the graphs to run as JSON
python -m tasks._table show 3 --seeds 0,1,2 [--profile smoke]       writes reports/tables/3.md and 3.json, and prints the first
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from iadr1.errors import Iadr1Error, ReportError
from iadr1.orderings import difference, together
from iadr1.params import parse
from iadr1.report import EvalReport, Prediction, read_predictions
from iadr1.report_tables import table
from tasks._grid import TABLES, Claim, Grid, Row, Run, default_run, grid_named, row_run
from tasks._run import Workspace, fresh_file
from tasks._tracking import end_release, stage_run

REPORTS = Path("reports/tables")
NO_FIGURES: Mapping[str, Any] = {"seeds": {}, "datasets": {}, "mean_balanced_accuracy_ci": None}
Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Placed:
    """A grid with the run of every row and seed; `defaults` are the runs that rows share."""

    table: str
    grid: Grid
    profile: str | None
    defaults: Mapping[int, Run]
    rows: Mapping[tuple[str, int], Run]
    failed: Mapping[str, str]  # why, by graph

    @property
    def file(self) -> Path:
        """Where the table goes, without its ending."""
        return REPORTS / "-".join([*([self.profile] if self.profile else []), self.table])


def placed(table: str, seeds: Sequence[int], profile: str | None, failed: Mapping[str, str] | None = None) -> Placed:
    """The runs of a table, written as DVC graphs where they are not there yet; those that have `failed` have no figures."""
    grid = grid_named(table)
    defaults = {seed: default_run(seed, profile=profile) for seed in seeds}
    rows = {(row.label, seed): row_run(row, defaults[seed], source=f"{table}: {row.label}") for seed in seeds for row in grid.rows}
    return Placed(table, grid, profile, defaults, rows, failed or {})


def graphs(found: Placed) -> list[Data]:
    """The graphs to bring up to date, seed by seed: the default run, then the rows; a run that several rows show stands there once."""
    told: dict[Path, Data] = {}
    for seed, default in found.defaults.items():
        # Registering is for the run that a person releases.
        told[default.pipeline] = {"pipeline": str(default.pipeline), "title": f"seed {seed}, default run", "skip": ["register"]}
        for row in found.grid.rows:
            run = found.rows[row.label, seed]
            told.setdefault(run.pipeline, {"pipeline": str(run.pipeline), "title": f"seed {seed}, {row.label}", "skip": []})
    return list(told.values())


def shown(found: Placed) -> Data:
    """Every figure of the table as plain values, for each number of reference images that was evaluated."""
    shots = next(iter(found.defaults.values())).tree["evaluate"]["shots"]
    return {
        "table": found.table,
        "title": found.grid.title,
        "profile": found.profile,
        "seeds": list(found.defaults),
        "backbone": next(iter(found.defaults.values())).tree["pa_sft"]["backbone"],
        "settings": {f"{count}-shot": _setting(found, count) for count in shots},
        "failed": {graph["title"]: found.failed[graph["pipeline"]] for graph in graphs(found) if graph["pipeline"] in found.failed},
    }


def _setting(found: Placed, shots: int) -> Data:
    said = {row.label: [one for seed in found.defaults for one in _predictions(found, row, seed, shots)] for row in found.grid.rows}
    rows = {row.label: _figures(row, said[row.label], f"{shots}-shot") for row in found.grid.rows}
    claims = [_claim(claim, found.grid, said, f"{shots}-shot") for claim in found.grid.claims]
    return {"rows": rows, "claims": claims}


def _predictions(found: Placed, row: Row, seed: int, shots: int) -> Iterator[Prediction]:
    run = found.rows[row.label, seed]
    if str(run.pipeline) in found.failed:
        return
    for dataset in run.tree["evaluate"]["datasets"]:
        file = Path(run.tree["experiment"]["data"], "predictions", f"{dataset}-{shots}.jsonl")
        if not file.is_file():
            raise ReportError(f"{file}: no such predictions. Run `make table T={found.table}` to make them.")
        yield from (one for one in read_predictions(file) if one.model == row.model)


def _figures(row: Row, predictions: Sequence[Prediction], setting: str) -> Data:
    (model,) = EvalReport.of(predictions).to_dict()["models"].values() if predictions else (NO_FIGURES,)
    alone = [value for value in model["seeds"].values() if value is not None]
    return {
        "model": row.model,
        "change": row.change,
        "mean": fmean(alone) if alone else None,
        "sd": stdev(alone) if len(alone) > 1 else None,
        "by_seed": model["seeds"],
        "images_ci": model["mean_balanced_accuracy_ci"],
        "datasets": {name: entry["balanced_accuracy"] for name, entry in model["datasets"].items()},
        "unreadable": fmean(entry["unreadable"] for entry in model["datasets"].values()) if predictions else None,
        "paper": {backbone: _paper(values.get(setting)) for backbone, values in row.paper.items()},
    }


def _paper(values: float | Mapping[str, float] | None) -> Data:
    """The paper's mean and figures of data sets; the mean is None where it does not give them all."""
    if isinstance(values, Mapping):
        return {"mean": fmean(values.values()) if len(values) in (2, 6) else None, "datasets": dict(values)}
    return {"mean": values, "datasets": {}}


def _claim(claim: Claim, grid: Grid, said: Mapping[str, Sequence[Prediction]], setting: str) -> Data:
    parts = []
    for first, second in claim.pairs(grid.labels):
        pair = [[one for one in said[label] if not claim.datasets or one.dataset in claim.datasets] for label in (first, second)]
        if not all(pair):
            continue
        found = difference(pair[0], pair[1], labels=(first, second))
        if found is not None:
            parts.append({**found.to_dict(), "paper": _paper_differences(grid, first, second, claim, setting)})
    return {"says": claim.says, "datasets": claim.datasets, "judgement": together(part["judgement"] for part in parts), "parts": parts}


def _paper_differences(grid: Grid, first: str, second: str, claim: Claim, setting: str) -> dict[str, float]:
    papers = {row.label: {name: _paper_mean(values.get(setting), claim) for name, values in row.paper.items()} for row in grid.rows}
    pairs = {name: (value, papers[second].get(name)) for name, value in papers[first].items()}
    return {name: round(b - a, 2) for name, (a, b) in pairs.items() if a is not None and b is not None}


def _paper_mean(values: float | Mapping[str, float] | None, claim: Claim) -> float | None:
    told = _paper(values)
    chosen = [told["datasets"][name] for name in claim.datasets if name in told["datasets"]]
    mean: float | None = told["mean"] if not claim.datasets else fmean(chosen) if chosen else None
    return mean


def markdown(told: Data) -> str:
    """The page: our rows beside the paper's, the data sets, then the claims."""
    count = len(told["seeds"])
    caption = (
        f"Balanced accuracy in percent, mean over data sets. Ours: the backbone `{told['backbone']}`, "
        f"{'profile ' + told['profile'] + ', ' if told['profile'] else ''}{count} seed{'s' if count > 1 else ''} "
        f"({', '.join(map(str, told['seeds']))}), mean ± standard deviation over seeds and the 95 % interval over images (bootstrap). "
        "The paper's figures are of other backbones on the public data sets: compare orderings, not numbers."
    )
    parts = [f"# {told['title']}", caption]
    for name, setting in told["settings"].items():
        parts += [f"## {name}" if len(told["settings"]) > 1 else "", _rows_table(setting), _datasets_table(setting), _claims_table(setting)]
    parts += [f"No figures: {title}: {why}" for title, why in told["failed"].items()]
    return "\n\n".join(part.strip() for part in (*parts, LEGEND) if part) + "\n"


LEGEND = (
    "A claim's difference is the second row minus the first, paired: the same seed, data and images. It holds when the 95 % interval of Student's t "
    "over seeds is above 0, does not hold when it is below, and cannot be told when it contains 0; of one seed the interval over images decides, which "
    "says nothing about another training. A claim of several parts holds when each part does. An answer that cannot be read counts as wrong."
)


def _rows_table(setting: Data) -> str:
    papers = list(dict.fromkeys(name for row in setting["rows"].values() for name in row["paper"]))
    header = ["row", "model", "ours", "95 % interval", "unreadable", *(f"paper, {name}" for name in papers)]
    rows = [
        [label, row["model"], _spread(row), _interval(row["images_ci"]), _number(row["unreadable"])]
        + [_number((row["paper"].get(name) or {}).get("mean")) for name in papers]
        for label, row in setting["rows"].items()
    ]
    return table(header, rows)


def _datasets_table(setting: Data) -> str:
    """Ours / the paper's of every data set, of the first backbone that the paper gives them for."""
    rows = setting["rows"]
    names = list(dict.fromkeys(name for row in rows.values() for name in row["datasets"]))
    papers = [name for row in rows.values() for name, told in row["paper"].items() if told["datasets"]]
    first = papers[0] if papers else None
    body = []
    for label, row in rows.items():
        theirs = row["paper"].get(first, {}).get("datasets", {})
        body.append(
            [label, *(f"{_number(row['datasets'].get(name))}{f' / {theirs[name]:.1f}' if name in theirs else ''}" for name in names)]
        )
    return table([f"ours{f' / paper, {first}' if first else ''}", *names], body)


def _claims_table(setting: Data) -> str:
    header = ["claim", "rows", "difference", "by seed", "95 % over seeds", "95 % over images", "in the paper", "ours"]
    rows = []
    for claim in setting["claims"]:
        where = f" ({', '.join(claim['datasets'])})" if claim["datasets"] else ""
        rows.append([claim["says"] + where, *[""] * 6, f"**{claim['judgement']}**"])
        rows += [["", *_part_cells(part)] for part in claim["parts"]]
    return table(header, rows)


def _part_cells(part: Data) -> list[str]:
    found = [f"{part['first']} < {part['second']}", f"{part['mean']:+.1f}", _signed(part["by_seed"])]
    return [*found, _interval(part["seeds_ci"]), _interval(part["images_ci"]), _signed(part["paper"]) or "–", part["judgement"]]


def _signed(values: Mapping[str, float]) -> str:
    return " ".join(f"{value:+.1f}" for value in values.values())


def _spread(row: Data) -> str:
    return _number(row["mean"]) + ("" if row["sd"] is None else f" ± {row['sd']:.1f}")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _interval(bounds: Sequence[float] | None) -> str:
    return "–" if bounds is None else f"{bounds[0]:.1f} to {bounds[1]:.1f}"


def files(found: Placed) -> list[Path]:
    """The table as Markdown and as JSON."""
    return [found.file.with_name(f"{found.file.name}{ending}") for ending in (".md", ".json")]


def record(found: Placed, told: Data) -> None:
    """Log the table to MLflow, as a run of the experiment of tables."""
    default = next(iter(found.defaults.values()))
    source = TABLES / f"{found.table}.yaml"
    params = parse(default.tree, source=str(source))
    with stage_run(replace(Workspace.of(params, source), name="tables"), f"table {found.file.name}", params) as run:
        rows = {(setting, label): row["mean"] for setting, rates in told["settings"].items() for label, row in rates["rows"].items()}
        # MLflow takes only these in a name.
        metrics = {re.sub(r"[^\w .:/-]", "", f"{setting}.{label}"): mean for (setting, label), mean in rows.items()}
        run.log_metrics(metrics)
        end_release(run, metrics, files(found))


def write(found: Placed, told: Data) -> bool:
    """Write the table as Markdown and JSON; whether anything has changed."""
    texts = dict(zip(files(found), (markdown(told), json.dumps(told, indent=1, ensure_ascii=False) + "\n"), strict=True))
    changed = {file: text for file, text in texts.items() if not file.is_file() or file.read_text(encoding="utf-8") != text}
    for file, text in changed.items():
        with fresh_file(file) as beside:
            beside.write_text(text, encoding="utf-8")
    return bool(changed)


def show(found: Placed) -> None:
    """Write the table, record it where it has changed, and print its page."""
    told = shown(found)
    if write(found, told):
        record(found, told)
    print(markdown(told), end="")


def main() -> None:
    """Compose or show the table that the command line names."""
    parser = argparse.ArgumentParser("python -m tasks._table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("compose", "show"))
    parser.add_argument("table", metavar="TABLE")
    parser.add_argument("--seeds", metavar="0,1,2", default="0,1,2", type=lambda text: [int(seed) for seed in text.split(",")])
    parser.add_argument("--profile", metavar="NAME", help="an experiment whose keys all rows change too")
    parser.add_argument("--failed", default={}, type=json.loads, help="why, by graph, a run has no figures (JSON)")
    given = parser.parse_args()
    try:
        found = placed(given.table, given.seeds, given.profile or None, given.failed)
        if given.verb == "compose":
            print(json.dumps(graphs(found)))
        else:
            show(found)
    except Iadr1Error as error:
        sys.exit(f"table: {error}")


if __name__ == "__main__":
    main()
