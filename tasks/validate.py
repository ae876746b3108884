"""Validate: judge the prepared samples with Great Expectations before anything is trained on them.

Run it with `python -m tasks.validate`, or as a stage of `dvc repro`. An error stops the chain and names the rows; a warning is recorded. The findings
are in reports/validation.json, and as pages in reports/data_docs/index.html.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iadr1.datasets import NAMED
from iadr1.errors import DatasetError
from iadr1.params import Params
from iadr1.params import Validate as Limits
from iadr1.samples import Sample, read_samples
from tasks._run import Workspace, fresh_directory, fresh_file, run_stage
from tasks._tables import TRAINING, tables

if TYPE_CHECKING:
    import great_expectations as gx

Table = list[dict[str, Any]]
Finding = dict[str, Any]

# The columns that hold a fault in words; in a sound row they are empty. A training part is refused for any of them, a test set too, but for the last two.
FAULTS = {
    "image_problem": "the image can be read and is not blank",
    "mask_problem": "the mask has the size of its image and marks something",
    "annotation_problem": "location and type are words that the rewards know, and only defects have them",
    "reference_problem": "references exist and are not the image itself",
    "physical_sample_also_in": "no physical sample is in another part of the training or in a test set",
    "image_also_in": "no image is in another part of the training or in a test set",
}
CHAIN_FAULTS = {
    "target_problem": "the target text is in the grammar that the rewards read",
    "chain_problem": "the chain of thought names what the tags name, and no reference image",
}


def main(params: Params, work: Workspace) -> None:
    """Judge, record, and refuse what training must not see."""
    from tasks._tracking import stage_run

    with stage_run(work, "validate", params) as run:
        report = validated(params, work)
        run.log_metrics({"errors": report["errors"], "warnings": report["warnings"]})
        run.log_file(work.reports / "validation.json")
        refuse_errors(report, work)


def validated(params: Params, work: Workspace) -> dict[str, Any]:
    """Judge every table, write the report and its pages; the report holds nothing that changes between two runs on the same data."""
    samples = _prepared_samples(work)
    judged = tables(samples, grid=params.prepare.grid)
    with fresh_directory(work.reports / "data_docs") as pages:
        findings = _judged(judged, params.validate, pages=pages)
    errors, warnings = ([finding for finding in findings if finding["severity"] == severity] for severity in ("error", "warning"))
    report = {
        "passed": not errors,
        "errors": len(errors),
        "warnings": len(warnings),
        "tables": {name: {"rows": len(rows), "anomalous": sum(sample.anomalous for sample in rows)} for name, rows in samples.items()},
        "findings": findings,
    }
    with fresh_file(work.reports / "validation.json") as file:
        file.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"validate: {sum(map(len, samples.values()))} rows in {len(samples)} tables: {len(errors)} errors, {len(warnings)} warnings.")
    for finding in warnings:
        print(f"validate: warning: {_said(finding)}")
    return report


def refuse_errors(report: Mapping[str, Any], work: Workspace) -> None:
    """Raise DatasetError that names every error and its rows."""
    errors = [_said(finding) for finding in report["findings"] if finding["severity"] == "error"]
    if errors:
        raise DatasetError(
            f"the data is not fit to train on ({len(errors)} of the checks failed).\n"
            + "\n".join(errors)
            + f"\nCorrect the data, or name the rows in `exclude` of their data set, and run again; all of it is in {work.reports / 'data_docs' / 'index.html'}."
        )


def _prepared_samples(work: Workspace) -> dict[str, list[Sample]]:
    files = {name: work.prepared / f"{name}.jsonl" for name in TRAINING}
    files |= {f"test/{file.stem}": file for file in sorted((work.prepared / "test").glob("*.jsonl"))}
    return {name: read_samples(file) for name, file in files.items()}


def _judged(judged: Mapping[str, Table], limits: Limits, *, pages: Path) -> list[Finding]:
    """The findings of every table's suite, in the order of tables and checks."""
    import great_expectations as gx
    import pandas as pd

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    _publish_at(context, pages)
    source = context.data_sources.add_pandas("prepared")
    findings: list[Finding] = []
    for name, rows in judged.items():
        title = name.replace("/", "-")  # Data Docs make files of the names
        suite = context.suites.add(gx.ExpectationSuite(title, expectations=_expectations(name, limits, empty=not rows)))
        batch = source.add_dataframe_asset(title).add_batch_definition_whole_dataframe("all")
        validation = context.validation_definitions.add(gx.ValidationDefinition(name=title, data=batch, suite=suite))
        result = validation.run(
            batch_parameters={"dataframe": pd.DataFrame(rows)},
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["id"] if rows else []},
        )
        findings += sorted((_finding(name, one) for one in result.results if not one.success), key=lambda finding: str(finding["check"]))
    context.build_data_docs()
    return findings


def _publish_at(context: "gx.data_context.EphemeralDataContext", pages: Path) -> None:
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(pages.absolute())}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    context.delete_data_docs_site("local_site")  # the default one, in a temporary folder
    context.add_data_docs_site("report", {"class_name": "SiteBuilder", "site_index_builder": index, "store_backend": store, "show_how_to_buttons": False})


def _expectations(name: str, limits: Limits, *, empty: bool) -> "list[gx.expectations.Expectation]":
    """The suite of a table; the least number of rows comes first, because an empty table has no columns to judge."""
    import great_expectations.expectations as gxe

    training = name in TRAINING
    least = limits.minimum_rows if name in ("pa_sft", "sc_grpo") else 1
    count = gxe.ExpectTableRowCountToBeBetween(min_value=least, severity="warning" if name == "validation" else "critical", notes=f"at least {least} rows")
    if empty:
        return [count]
    faults = [gxe.ExpectColumnValuesToBeNull(column=column, severity="critical", notes=said) for column, said in FAULTS.items()]
    chains = _chain_expectations() if name in ("pa_sft", "validation") else []
    return [count, *_identity(), *faults, *chains, *_balance(limits, training=training)]


def _identity() -> "list[gx.expectations.Expectation]":
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToBeUnique(column="id", severity="critical", notes="ids are unique"),
        gxe.ExpectColumnValuesToMatchRegex(
            column="id", regex=r"^[^/]+/[^/]+/(train|test)/[^/]+/.+$", severity="critical", notes="ids are dataset/category/split/class/name"
        ),
        gxe.ExpectColumnValuesToBeInSet(column="anomalous", value_set=[True, False], severity="critical", notes="the label is true or false"),
        gxe.ExpectColumnValuesToNotBeNull(column="category", severity="critical", notes="the category is known"),
        gxe.ExpectColumnValuesToBeBetween(column="visibility", min_value=0, max_value=1, severity="critical", notes="visibility is between 0 and 1"),
        gxe.ExpectColumnValuesToBeUnique(column="sha256", severity="warning", notes="no image is there twice"),
    ]


def _chain_expectations() -> "list[gx.expectations.Expectation]":
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToNotBeNull(column="reasoning", severity="critical", notes="every row has a chain of thought"),
        *(gxe.ExpectColumnValuesToBeNull(column=column, severity="critical", notes=said) for column, said in CHAIN_FAULTS.items()),
        gxe.ExpectColumnValueLengthsToBeBetween(
            column="reasoning", min_value=40, max_value=2000, severity="warning", notes="chains of thought have 40 to 2000 characters"
        ),
        gxe.ExpectColumnProportionOfUniqueValuesToBeBetween(
            column="reasoning", min_value=0.8, severity="warning", notes="at least 80 % of the chains of thought differ"
        ),
    ]


def _balance(limits: Limits, *, training: bool) -> "list[gx.expectations.Expectation]":
    import great_expectations.expectations as gxe

    least = limits.minimum_minority_share
    if not training:
        return [
            gxe.ExpectColumnDistinctValuesToContainSet(
                column="anomalous", value_set=[True, False], severity="warning", notes="there are normal and defective images"
            )
        ]
    share = {"min_value": least, "max_value": 1 - least}
    return [gxe.ExpectColumnMeanToBeBetween(column="anomalous", severity="critical", notes=f"each label has a share of at least {least}", **share)]


def _finding(table: str, result: "gx.core.ExpectationValidationResult") -> Finding:
    configuration, content = result.expectation_config, result.result
    column = configuration.kwargs.get("column", "")
    rows = [_example(row, column) for row in content.get("unexpected_index_list") or ()]
    raised = [info["exception_message"] for info in _exceptions(result.exception_info)]
    return {
        "table": table,
        "check": str(configuration.notes),
        "severity": "warning" if configuration.severity == "warning" else "error",
        "rows": len(rows),
        "found": raised[0] if raised else str(content.get("observed_value", f"{len(rows)} rows")),
        "examples": sorted(rows)[:NAMED],
    }


def _exceptions(info: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What a check raised; one exception is given flat, several by metric."""
    many = [info] if "raised_exception" in info else list(info.values())
    return [one for one in many if one.get("raised_exception")]


def _example(row: Mapping[str, Any], column: str) -> str:
    return str(row["id"]) if column in ("id", "sha256", "") or row.get(column) is None else f"{row['id']}: {row[column]}"


def _said(finding: Finding) -> str:
    """A finding in one paragraph."""
    more = [f"… and {finding['rows'] - NAMED} more"] if finding["rows"] > NAMED else []
    return "\n  ".join([f"{finding['table']}: expected that {finding['check']}; found {finding['found']}.", *finding["examples"], *more])


if __name__ == "__main__":
    run_stage("validate", main)
