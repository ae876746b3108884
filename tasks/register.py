"""Sums up every evaluation, decides by the floors of params.yaml, and registers the inspector.

Reads `reports/evaluate/*.json` and `models/sc_grpo`, writes `reports/summary.json`, `reports/summary.md` and, with the
predictions, their images and the trainings' logs, `reports/report.html` and `reports/comparison.md`. Run it with `python -m tasks.register`.
The model becomes a version of the registered model in any case, and `staging` when it passes every floor; otherwise the reason is told.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iadr1.errors import ModelError, ReportError
from iadr1.gates import Decision, decide
from iadr1.params import Params
from iadr1.report import DatasetReport, EvalReport, ModelReport
from iadr1.report_page import Evaluation, figures, page
from iadr1.report_tables import table
from tasks._report import comparison, evaluation, figures_of, settings_of
from tasks._run import Workspace, fresh_file, run_stage
from tasks._tracking import Candidate, Registered, end_release, register_model, stage_run

STAGE = "register"
CANDIDATE = "sc_grpo"
INSPECTOR = Path(__file__).with_name("_inspector.py")
TITLES = {"base": "base", "pa_sft": "PA-SFT", "sc_grpo": "SC-GRPO"}
RATES = ("n", "balanced_accuracy", "tpr", "tnr", "unreadable", "location_accuracy", "type_accuracy", "balanced_accuracy_ci")

Summary = dict[str, Any]


def main(params: Params, work: Workspace) -> None:
    """Sum up, decide, register, and tell."""
    summaries = {shots: summed_up(_reports(params, work, shots=shots)) for shots in params.evaluate.shots}
    models = summaries[params.evaluate.shots[0]]
    decision = decide(models.get(CANDIDATE, {}), params.register.floors)
    with stage_run(work, STAGE, params) as run:
        registered = register_model(run, work, _candidate(params, work, decision))
        told = {**_told(registered), "gates": "passed" if decision.passed else "failed", "message": message(registered, decision)}
        _write(work, summaries, told)
        files = [work.reports / name for name in ("summary.json", "summary.md", "report.html", "comparison.md")]
        shown = evaluation(params, work)
        _write_page(work, shown)
        metrics = {
            f"{name}.{figure}": model[figure] for name, model in models.items() for figure in ("mean_balanced_accuracy", "hardest_third")
        }
        metrics |= figures_of(shown)
        run.log_metrics(metrics)
        tags = {"gates": told["gates"], "registered": f"{registered.name} version {registered.version}"}
        run.set_tags(tags)
        end_release(run, metrics, files, settings=settings_of(params), tags=tags, charts=figures(shown))
    print(f"{STAGE}: {told['message']}")


def summed_up(report: EvalReport) -> dict[str, Summary]:
    """Of each model: the rates of every data set, their mean with its interval, and the mean over each set's hardest third."""
    return {name: _model(found) for name, found in report.to_dict()["models"].items()}


def merged(reports: Sequence[EvalReport]) -> EvalReport:
    """One report of reports on different data sets."""
    datasets: dict[str, dict[str, DatasetReport]] = {}
    for report in reports:
        for name, model in report.models.items():
            datasets.setdefault(name, {}).update(model.datasets)
    return EvalReport({name: ModelReport(found) for name, found in datasets.items()})


def markdown(models: Mapping[str, Summary]) -> str:
    """The table that a person wants to see: data sets down, models across."""
    names = [*(name for name in TITLES if name in models), *(name for name in models if name not in TITLES)]
    datasets = list(models[names[0]]["datasets"])
    rows = [
        [dataset, str(models[names[0]]["datasets"][dataset]["n"]), *(_cell(models[name]["datasets"][dataset]) for name in names)]
        for dataset in datasets
    ]
    rows.append(
        ["**mean**", "", *(_figure(models[name]["mean_balanced_accuracy"], models[name]["mean_balanced_accuracy_ci"]) for name in names)]
    )
    rows.append(["hardest third", "", *(_figure(models[name]["hardest_third"]) for name in names)])
    return table(["data set", "images", *(TITLES.get(name, name) for name in names)], rows)


def message(registered: Registered, decision: Decision) -> str:
    """What was registered, and why it may or may not be used."""
    what = f"{registered.name} version {registered.version}" + ("" if registered.is_new else " (there already: the same model and reports)")
    return f"{what}, now `{registered.alias}`: {decision.reason}" if decision.passed else f"{what}, not promoted: {decision.reason}"


def _reports(params: Params, work: Workspace, *, shots: int) -> EvalReport:
    return merged([_report(work.reports / "evaluate" / f"{dataset}-{shots}.json") for dataset in params.evaluate.datasets])


def _report(path: Path) -> EvalReport:
    if not path.is_file():
        raise ReportError(f"{path}: no such report. Run `dvc repro evaluate` to make it.")
    return EvalReport.from_json(path.read_text(encoding="utf-8"))


def _model(found: Mapping[str, Any]) -> Summary:
    datasets = {name: {rate: entry[rate] for rate in RATES} | _hardest(entry) for name, entry in found["datasets"].items()}
    hardest = [entry["hardest_third"]["balanced_accuracy"] for entry in datasets.values() if entry["hardest_third"]]
    known = [value for value in hardest if value is not None]
    return {
        "datasets": datasets,
        "mean_balanced_accuracy": found["mean_balanced_accuracy"],
        "mean_balanced_accuracy_ci": found["mean_balanced_accuracy_ci"],
        "hardest_third": sum(known) / len(known) if known else None,
    }


def _hardest(entry: Mapping[str, Any]) -> Summary:
    found = entry["hardest_third"]
    return {"hardest_third": found and {rate: found[rate] for rate in ("n", "balanced_accuracy", "tpr", "tnr")}}


def _candidate(params: Params, work: Workspace, decision: Decision) -> Candidate:
    folder = work.models / CANDIDATE
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model. Run `dvc repro {CANDIDATE}` to make it.")
    name = params.register.name if work.name == "root" else f"{params.register.name}-{work.name}"
    told = params.evaluate
    settings = {"batch_size": told.batch_size, "max_new_tokens": told.max_new_tokens, "max_pixels": params.pa_sft.max_pixels}
    files = [work.reports / "evaluate" / f"{dataset}-{shots}.json" for dataset in told.datasets for shots in told.shots]
    return Candidate(name, folder, INSPECTOR, files, settings, decision.passed, decision.reason)


def _told(registered: Registered) -> Summary:
    return {"name": registered.name, "version": registered.version, "alias": registered.alias}


def _write(work: Workspace, summaries: Mapping[int, Mapping[str, Summary]], registered: Summary) -> None:
    first, *others = summaries
    more = {"shots": {str(shots): {"models": summaries[shots]} for shots in others}} if others else {}
    with fresh_file(work.reports / "summary.json") as beside:
        beside.write_text(json.dumps({"models": summaries[first], **more, "registered": registered}, indent=1) + "\n", encoding="utf-8")
    with fresh_file(work.reports / "summary.md") as beside:
        beside.write_text(_page(summaries, registered), encoding="utf-8")


def _write_page(work: Workspace, shown: Evaluation) -> None:
    with fresh_file(work.reports / "report.html") as beside:
        beside.write_text(page(shown), encoding="utf-8")
    with fresh_file(work.reports / "comparison.md") as beside:
        beside.write_text(comparison(shown), encoding="utf-8")


def _page(summaries: Mapping[int, Mapping[str, Summary]], registered: Summary) -> str:
    legend = (
        "Balanced accuracy in percent [95 % interval], TPR/TNR, and the share of answers that could not be read when there are any (?)."
    )
    tables = [f"{f'With {shots} reference images:' if shots else ''}\n\n{markdown(models)}".strip() for shots, models in summaries.items()]
    return "\n\n".join([*tables, legend, f"Registered: {registered['message']}."]) + "\n"


def _cell(entry: Mapping[str, Any]) -> str:
    unread = f" ?{entry['unreadable']:.1f}" if entry["unreadable"] else ""
    return f"{_figure(entry['balanced_accuracy'], entry['balanced_accuracy_ci'])} {_percent(entry['tpr'])}/{_percent(entry['tnr'])}{unread}"


def _figure(value: float | None, interval: Sequence[float] | None = None) -> str:
    return _percent(value) + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    run_stage(STAGE, main)
