"""Validate: judge the raw files and the prepared samples with Great Expectations before anything is trained on them.

Run it with `python -m tasks.validate`, or as a stage of `dvc repro`. An error stops the chain and names the rows; a warning is recorded.
The findings are in reports/validation.json, and as pages in reports/data_docs/index.html.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iadr1.datasets import NAMED
from iadr1.errors import DatasetError
from iadr1.params import Params
from iadr1.params import Validate as Limits
from iadr1.samples import Sample, read_samples
from tasks._checks import Check, checks, expectations
from tasks._data_docs import complete, publish_at, title
from tasks._run import Workspace, fresh_directory, fresh_file, run_stage
from tasks._tables import RAW, TRAINING, Table, listing, tables

if TYPE_CHECKING:
    import great_expectations as gx

Finding = dict[str, Any]
MOST = 5000  # characters of a tag that every store of MLflow takes


def main(params: Params, work: Workspace) -> None:
    """Judge, record, and refuse what training must not see."""
    from tasks._tracking import stage_run

    with stage_run(work, "validate", params) as run:
        report = validated(params, work)
        run.log_metrics({"errors": report["errors"], "warnings": report["warnings"]})
        run.set_tags(_tags(report))
        run.log_file(work.reports / "validation.json")
        refuse_errors(report, work)


def _tags(report: Mapping[str, Any]) -> dict[str, str]:
    """What was found, in words, as the page of the run shows it."""
    said = {
        f"{severity}s": "\n".join(_said(finding) for finding in report["findings"] if finding["severity"] == severity)
        for severity in ("error", "warning")
    }
    return {name: text[:MOST] for name, text in said.items() if text}


def validated(params: Params, work: Workspace) -> dict[str, Any]:
    """Judge every table, write the report and its pages; the report is the same for the same data."""
    samples = _prepared_samples(work)
    layouts = {name: source.layout for name, source in {**params.prepare.train, **params.evaluate.datasets}.items()}
    judged = {RAW: listing(Path(params.experiment.fetched)), **tables(samples, grid=params.prepare.grid, layouts=layouts)}
    with fresh_directory(work.reports / "data_docs") as pages:
        findings = findings_of(judged, params.validate, chains=params.prepare.chains == "expert_ad", pages=pages)
        complete(pages, {name: len(rows) for name, rows in judged.items()}, _said_of(findings))
    errors, warnings = ([finding for finding in findings if finding["severity"] == severity] for severity in ("error", "warning"))
    report = {
        "passed": not errors,
        "errors": len(errors),
        "warnings": len(warnings),
        "tables": {RAW: {"rows": len(judged[RAW])}, **{name: _size(rows) for name, rows in samples.items()}},
        "findings": findings,
    }
    with fresh_file(work.reports / "validation.json") as file:
        file.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    rows = sum(map(len, samples.values()))
    print(f"validate: {len(judged[RAW])} files, {rows} rows in {len(samples)} tables: {len(errors)} errors, {len(warnings)} warnings.")
    for finding in warnings:
        print(f"validate: warning: {_said(finding)}")
    return report


def _size(rows: Sequence[Sample]) -> dict[str, int]:
    return {"rows": len(rows), "anomalous": sum(sample.anomalous is True for sample in rows)}


def refuse_errors(report: Mapping[str, Any], work: Workspace) -> None:
    """Raise DatasetError that names every error and its rows."""
    errors = [_said(finding) for finding in report["findings"] if finding["severity"] == "error"]
    if errors:
        heading = f"the data is not fit to train on ({len(errors)} of the checks failed)."
        advice = "Correct the data, or name the rows in `exclude` of their data set, and run again. All findings:"
        raise DatasetError("\n".join([heading, *errors, f"{advice} {work.reports / 'data_docs' / 'index.html'}"]))


def _prepared_samples(work: Workspace) -> dict[str, list[Sample]]:
    files = {name: work.prepared / f"{name}.jsonl" for name in TRAINING}
    files |= {f"test/{file.stem}": file for file in sorted((work.prepared / "test").glob("*.jsonl"))}
    return {name: read_samples(file) for name, file in files.items()}


def findings_of(judged: Mapping[str, Table], limits: Limits, *, chains: bool, pages: Path) -> list[Finding]:
    """The findings of every table's suite, in the order of tables and checks."""
    import great_expectations as gx
    import pandas as pd
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    publish_at(context, pages)
    source = context.data_sources.add_pandas("prepared")
    findings: list[Finding] = []
    for name, rows in judged.items():
        suite = checks(name, limits, empty=not rows, chains=chains)
        batch = source.add_dataframe_asset(title(name)).add_batch_definition_whole_dataframe("all")
        expected = context.suites.add(gx.ExpectationSuite(title(name), expectations=expectations(suite)))
        validation = context.validation_definitions.add(gx.ValidationDefinition(name=title(name), data=batch, suite=expected))
        result = validation.run(
            batch_parameters={"dataframe": pd.DataFrame(rows)},
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["id"] if rows else []},
        )
        findings += _findings(name, suite, result.results)
    context.build_data_docs()
    return findings


def _findings(table: str, suite: Sequence[Check], results: "Sequence[gx.core.ExpectationValidationResult]") -> list[Finding]:
    """What failed, in the order of the suite."""
    failed = {str(result.expectation_config.description): result for result in results if not result.success and result.expectation_config}
    return [_finding(table, check, failed[check.sentence]) for check in suite if check.sentence in failed]


def _finding(table: str, check: Check, result: "gx.core.ExpectationValidationResult") -> Finding:
    rows = sorted(_example(row, check.given.get("column", "")) for row in result.result.get("unexpected_index_list") or ())
    raised = [info["exception_message"] for info in _exceptions(result.exception_info)]
    return {
        "table": table,
        "check": check.fact,
        "severity": "error" if check.is_error else "warning",
        "rows": len(rows),
        "found": raised[0] if raised else str(result.result.get("observed_value", f"{len(rows)} rows")),
        "examples": rows[:NAMED],
    }


def _exceptions(info: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What a check raised; one exception is given flat, several by metric."""
    many = [info] if "raised_exception" in info else list(info.values())
    return [one for one in many if one.get("raised_exception")]


def _example(row: Mapping[str, Any], column: str) -> str:
    return str(row["id"]) if column in ("id", "sha256", "") or row.get(column) is None else f"{row['id']}: {row[column]}"


def _said_of(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """The findings of each table as its pages say them."""
    said = defaultdict[str, list[str]](list)
    for finding in findings:
        said[finding["table"]].append(f"{finding['severity']}: {_said(finding)}")
    return said


def _said(finding: Finding) -> str:
    """A finding in one paragraph."""
    more = [f"… and {finding['rows'] - NAMED} more"] if finding["rows"] > NAMED else []
    return "\n  ".join([f"{finding['table']}: expected that {finding['check']}; found {finding['found']}.", *finding["examples"], *more])


if __name__ == "__main__":
    run_stage("validate", main)
