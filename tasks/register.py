"""Sums up every evaluation, registers the inspector, and moves it to staging when the gates of params.yaml let it.

Reads `reports/evaluate/*.json`, `reports/validation.json`, the predictions and `models/sc_grpo`; writes `reports/summary.{json,md}`,
`reports/decision.{json,md}` and, with the images and the trainings' logs, `reports/report.html` and `reports/comparison.md`. Run it with
`python -m tasks.register`. The model becomes a version of the registered model in any case; what keeps it from staging is told.
Production is for a person or a flow to decide: `iadr1 registry promote staging --to production`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from iadr1.decision import Decision
from iadr1.errors import ModelError, ReportError
from iadr1.evaluations import CANDIDATE, case_of, of_model, registered_evaluation
from iadr1.gates import STAGING, decide
from iadr1.params import Params
from iadr1.registry import lifecycle
from iadr1.registry.states import ARCHIVED
from iadr1.registry.store import Store
from iadr1.registry.version import ANSWERS, Version
from iadr1.report import DatasetReport, EvalReport, ModelReport, iterate_predictions, write_predictions
from iadr1.report_page import Evaluation, figures, page
from iadr1.report_tables import table
from tasks._registration import Candidate, registered_version
from tasks._report import comparison, evaluation, figures_of, settings_of
from tasks._run import Workspace, fresh_file, run_stage
from tasks._tracking import StageRun, end_release, lineage_of, spent, stage_run

STAGE = "register"
INSPECTOR = Path(__file__).with_name("_inspector.py")
TITLES = {"base": "base", "pa_sft": "PA-SFT", "sc_grpo": "SC-GRPO"}
RATES = ("n", "balanced_accuracy", "tpr", "tnr", "unreadable", "location_accuracy", "type_accuracy", "balanced_accuracy_ci")

Summary = dict[str, Any]


def main(params: Params, work: Workspace) -> None:
    """Sum up, register, decide, promote, and tell."""
    summaries = {shots: summed_up(_reports(params, work, shots=shots)) for shots in params.evaluate.shots}
    models = summaries[params.evaluate.shots[0]]
    with stage_run(work, STAGE, params) as run:
        told, decision = _registered(run, params, work)
        told["lineage"] = {**lineage_of(work), "run_id": run.run_id, "release_run": run.release_id}
        _write(work, summaries, told)
        _write_decision(work, decision)
        names = ("summary.json", "summary.md", "report.html", "comparison.md", "decision.json", "decision.md")
        shown = evaluation(params, work, registered=f"{told['name']} version {told['version']}")
        _write_page(work, shown)
        metrics = {
            f"{name}.{figure}": model[figure] for name, model in models.items() for figure in ("mean_balanced_accuracy", "hardest_third")
        }
        metrics |= figures_of(shown)
        run.log_metrics(metrics)
        tags = {"gates": told["gates"], "registered": f"{told['name']} version {told['version']}"}
        run.set_tags(tags)
        files = [work.reports / name for name in names]
        end_release(run, metrics, files, settings=settings_of(params), tags=tags, charts=figures(shown))
    print(f"{STAGE}: {told['message']}")


def _registered(run: StageRun, params: Params, work: Workspace) -> tuple[Summary, Decision]:
    """The version of this model, in staging if the gates let it, and what they said; both are the same when it is done twice."""
    store = Store.at(params.register.name if work.name == "root" else f"{params.register.name}-{work.name}")
    with TemporaryDirectory() as folder:
        candidate = _candidate(run, params, work, Path(folder))
        version, is_new = registered_version(store, candidate, run_id=run.run_id)
    return _moved(store, version, params, is_new=is_new)


def _moved(store: Store, version: Version, params: Params, *, is_new: bool) -> tuple[Summary, Decision]:
    """To staging, if the gates let it, and unless it was there or further already."""
    state = lifecycle.repair(store, mirror=params.register.mirror_stages).state
    decision = _decision(store, version.number, state.production, params)
    if state.stage(version.number) != ARCHIVED:
        lifecycle.promote(
            store,
            lifecycle.number(version.number),
            to=STAGING,
            who=f"the stage {STAGE}",
            why="evaluated and registered",
            judge=lambda number, live: _decision(store, number, live, params),
            mirror=params.register.mirror_stages,
        )
    state = store.history().state
    alias = next((alias for alias in ("production", STAGING) if state.aliases[alias] == version.number), None)
    told = {"name": store.name, "version": version.number, "alias": alias, "gates": decision.verdict}
    return {**told, "message": message(version, decision, alias=alias, is_new=is_new, stage=state.stage(version.number))}, decision


def _decision(store: Store, number: int, live: int | None, params: Params) -> Decision:
    beside = None if live is None else registered_evaluation(store, live)
    return decide(case_of(registered_evaluation(store, number), beside, params), dict(params.register.gates), to=STAGING)


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


def message(version: Version, decision: Decision, *, alias: str | None, is_new: bool, stage: str) -> str:
    """What was registered, and why it may or may not be used."""
    what = f"{version}" + ("" if is_new else " (there already: the same model and predictions)")
    if alias:
        return f"{what}, now `{alias}`: {decision.summary}"
    return f"{what}, not promoted: {'it is archived' if stage == ARCHIVED else decision.summary}"


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


def _candidate(run: StageRun, params: Params, work: Workspace, beside: Path) -> Candidate:
    folder = work.models / CANDIDATE
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model. Run `dvc repro {CANDIDATE}` to make it.")
    told = params.evaluate
    settings = {"batch_size": told.batch_size, "max_new_tokens": told.max_new_tokens, "max_pixels": params.pa_sft.max_pixels}
    answers = (one for name in told.datasets for one in iterate_predictions(work.predictions / f"{name}-{told.shots[0]}.jsonl"))
    file = beside / Path(ANSWERS).name
    write_predictions(file, of_model(answers, CANDIDATE, str(work.predictions)))
    lineage = {**lineage_of(work), "experiment": work.name, "release_run": run.release_id, **spent(run), **_validation(work)}
    return Candidate(folder, INSPECTOR, file, settings, lineage)


def _validation(work: Workspace) -> dict[str, str]:
    """What the stage `validate` found, as a tag; none where it did not run."""
    file = work.reports / "validation.json"
    if not file.is_file():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    return {"validation": f"{'passed' if found['passed'] else 'failed'}, {found['errors']} errors, {found['warnings']} warnings"}


def _write_decision(work: Workspace, decision: Decision) -> None:
    for suffix, text in (("json", decision.to_json() + "\n"), ("md", decision.markdown())):
        with fresh_file(work.reports / f"decision.{suffix}") as beside:
            beside.write_text(text, encoding="utf-8")


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
