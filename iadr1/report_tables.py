"""A report as tables for people: Markdown, and the CSV layout of the paper's supplementary results."""

from collections.abc import Mapping, Sequence
from typing import Any

from iadr1.published import ParityRow
from iadr1.tallies import STATUSES

Report = Mapping[str, Any]


def markdown(report: Report) -> str:
    """Every model and dataset with its rates, then the means, as one Markdown table."""
    header = [
        "model",
        "dataset",
        "images",
        "balanced accuracy",
        "95 % interval",
        "TPR",
        "TNR",
        "unreadable",
        "location",
        "type",
        "hardest third",
    ]
    rows = []
    for model, found in report["models"].items():
        rows += [_dataset_row(model, name, entry) for name, entry in found["datasets"].items()]
        answers = sum(entry["n"] for entry in found["datasets"].values())
        mean = [_percent(found["mean_balanced_accuracy"]) + _spread(found["seeds"]), _interval(found["mean_balanced_accuracy_ci"])]
        rows.append([model, "**mean**", str(answers), *mean, *[""] * 6])
    return table(header, rows)


def markdown_rates(report: Report) -> str:
    """The further rates of every model and dataset: what a line costs, how the classes correlate, how the answers read."""
    named = {
        "macro_balanced_accuracy": "macro balanced accuracy", "overkill": "overkill", "escape": "escape", "precision": "precision", "f1": "F1",
        "mcc": "MCC", "agreement": "agreement", "tokens": "tokens",
    }  # fmt: skip
    rows = [
        [model, name, *(_percent(entry[key]) for key in named), *(_percent(entry["statuses"][status]) for status in STATUSES)]
        for model, found in report["models"].items()
        for name, entry in found["datasets"].items()
    ]
    return table(["model", "dataset", *named.values(), *STATUSES], rows)


def markdown_classes(report: Report) -> str:
    """Every class of every model and dataset."""
    header = ["model", "dataset", "class", "answers", "balanced accuracy", "TPR", "TNR", "unreadable"]
    rows = []
    for model, found in report["models"].items():
        for name, entry in found["datasets"].items():
            for category, rates in entry["classes"].items():
                figures = [_percent(rates[key]) for key in ("balanced_accuracy", "tpr", "tnr", "unreadable")]
                rows.append([model, name, category, str(rates["n"]), *figures])
    return table(header, rows)


def markdown_types(report: Report) -> str:
    """The detection rate of every annotated defect type."""
    rows = [
        [model, name, kind, str(rates["anomalous"]), _percent(rates["tpr"])]
        for model, found in report["models"].items()
        for name, entry in found["datasets"].items()
        for kind, rates in entry["types"].items()
    ]
    return table(["model", "dataset", "defect type", "answers", "TPR"], rows) if rows else ""


def markdown_p_yes(report: Report) -> str:
    """What P(yes) is worth, for every model and dataset that has it; empty where none has."""
    rows = [
        [model, name, str(found["n"]), str(found["missing"]), *(_percent(found[key]) for key in ("auroc", "average_precision", "ece")),
         *_threshold_cells(found["at_threshold"])]
        for model, told in report["models"].items()
        for name, entry in told["datasets"].items()
        if (found := entry.get("p_yes"))
    ]  # fmt: skip
    header = ["model", "dataset", "P(yes)", "without", "AUROC", "AP", "ECE", "threshold (validation)", "balanced accuracy there"]
    return table(header, rows) if rows else ""


def _threshold_cells(found: Mapping[str, Any] | None) -> list[str]:
    return ["-", "-"] if found is None else [f"{found['threshold']:.3f}", _percent(found["balanced_accuracy"])]


def markdown_comparison(comparison: Mapping[str, Any]) -> str:
    """Two models on the same images."""
    first, second = comparison["first"], comparison["second"]
    header = [
        "dataset",
        "images",
        f"only {first} right",
        f"only {second} right",
        f"{second} minus {first}",
        "95 % interval",
        "McNemar p",
        "p, Holm",
    ]
    rows = [
        [
            *(name, str(row["n"]), str(row["only_first"]), str(row["only_second"])),
            *(_signed(row["difference"]), _interval(row["difference_ci"]), f"{row['mcnemar_p']:.2g}", f"{row['mcnemar_p_holm']:.2g}"),
        ]
        for name, row in comparison["datasets"].items()
    ]
    rows.append(["**mean**", "", "", "", _signed(comparison["mean_difference"]), _interval(comparison["mean_difference_ci"]), "", ""])
    return table(header, rows)


def markdown_parity(rows: Sequence[ParityRow], backbone: str) -> str:
    """Ours beside the published figures of one backbone, with what is wrong with a figure as a note below.

    Our interval lies above or below a published figure, or the figure within it.
    """
    header = ["model", "dataset", "ours", f"paper ({backbone})", "delta", "supplementary", "delta", "flag"]
    notes = list(dict.fromkeys(flag for row in rows for flag in row.flags))
    body = [
        [
            *(row.model, row.dataset, _percent(row.ours), _percent(row.paper), _standing(row.paper_delta, row.standing(row.paper))),
            *(
                _percent(row.supplementary),
                _standing(row.supplementary_delta, row.standing(row.supplementary)),
                " ".join(f"[{notes.index(flag) + 1}]" for flag in row.flags),
            ),
        ]
        for row in rows
    ]
    return table(header, body) + "".join(f"\n[{number}] {note}" for number, note in enumerate(notes, 1)) + ("\n" if notes else "")


def csv(report: Report) -> str:
    """The layout of the paper's result files, one block for each model, unrounded."""
    blocks = []
    for model, found in report["models"].items():
        rows = [(name, entry["balanced_accuracy"]) for name, entry in found["datasets"].items()]
        lines = [f"{name},{_plain(value)},{_plain(value)}" for name, value in [*rows, ("Average", found["mean_balanced_accuracy"])]]
        title = [f"# {model}"] if len(report["models"]) > 1 else []
        blocks.append("\n".join([*title, ",Anomaly Detection,Average", *lines]))
    return "\n".join(blocks) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, padded so that it reads well as plain text too."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in [header, *rows]]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]) + "\n"


def _dataset_row(model: str, name: str, entry: Mapping[str, Any]) -> list[str]:
    hardest = entry["hardest_third"]
    rates = [_percent(entry[key]) for key in ("tpr", "tnr", "unreadable", "location_accuracy", "type_accuracy")]
    figures = [str(entry["n"]), _percent(entry["balanced_accuracy"]), _interval(entry["balanced_accuracy_ci"])]
    return [model, name, *figures, *rates, _percent(hardest and hardest["balanced_accuracy"])]


def _spread(seeds: Mapping[str, float | None]) -> str:
    """The standard deviation over seeds, when there are several."""
    values = [value for value in seeds.values() if value is not None]
    if len(values) < 2:
        return ""
    from statistics import stdev

    return f" ± {stdev(values):.1f} over {len(values)} seeds"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def _standing(delta: float | None, where: str) -> str:
    return f"{_signed(delta)} {where}".strip()


def _interval(bounds: Sequence[float] | None) -> str:
    return "-" if bounds is None else f"{bounds[0]:.1f} to {bounds[1]:.1f}"


def _plain(value: float | None) -> str:
    return "" if value is None else repr(value)
