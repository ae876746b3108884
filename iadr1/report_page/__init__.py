"""The report as one page that needs nothing else: tables, charts and a gallery of every answer. Try `iadr1 report PREDICTIONS.jsonl --html PAGE.html`."""

from __future__ import annotations

import base64
import csv
import hashlib
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from itertools import chain, pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from iadr1.calibration import Calibration
from iadr1.comparison import Comparison
from iadr1.errors import ReportError
from iadr1.published import STAGES, ParityRow, parity
from iadr1.report import EvalReport, Prediction
from iadr1.report_page import charts
from iadr1.report_page.cards import CARDS, KINDS, PICTURES, gallery
from iadr1.report_page.parts import parts
from iadr1.samples import Sample
from iadr1.tallies import STATUSES, Tally

if TYPE_CHECKING:
    from jinja2 import Environment

TITLES = {"base": "Base", "pa_sft": "PA-SFT", "sc_grpo": "SC-GRPO"}
SIZE = "\ufffdsize of the page\ufffd"  # no text holds it by chance
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; script-src "
CURVES = (  # what a training's log may hold: id, title, columns with their names, unit
    ("loss", "Loss", {"loss": "training", "eval_loss": "validation"}, "loss"),
    ("rewards", "Rewards", {
        "reward": "total", "rewards/consistency": "consistency", "rewards/accuracy": "accuracy", "rewards/location": "location",
        "rewards/type": "type",
    }, "mean reward"),
    ("length", "Length of completions", {"completion_length": "mean"}, "tokens"),
    ("signal", "Groups without a difference, and cut completions", {
        "frac_reward_zero_std": "no difference in reward", "clipped_ratio": "cut at the limit",
    }, "share"),
    ("drift", "Drift and entropy", {"kl": "KL to the reference", "entropy": "entropy"}, "nats"),
)  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """What a page is made of.

    `compared` are pairs of models, earlier first. `backbone` names the published figures to stand beside ours (for the reference images in `shots`,
    none when a model is not there), and `incomparable` says why they are not the same measurement, when they are not. `logs` are trainings' logs by
    name, `facts` short lines about where all this comes from.
    """

    predictions: Sequence[Prediction]
    samples: Sequence[Sample] = ()
    compared: Sequence[tuple[str, str]] = ()
    backbone: str | None = None
    shots: Mapping[str, int] = field(default_factory=dict)
    incomparable: str | None = None
    logs: Mapping[str, charts.Log] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    title: str = "Evaluation"
    grid: int = 3

    @cached_property
    def report(self) -> EvalReport:
        """The report of the predictions."""
        return EvalReport.of(self.predictions, grid=self.grid)

    @cached_property
    def models(self) -> list[str]:
        """Models in the order of their training, then by name."""
        return sorted(self.report.models, key=lambda name: (STAGES.index(name) if name in STAGES else len(STAGES), name))

    @cached_property
    def comparisons(self) -> list[dict[str, Any]]:
        """The pairs compared on the images that both answered; without pairs, those neighbours that share images."""
        answered: dict[str, set[tuple[str, int, str]]] = {}
        for each in self.predictions:
            answered.setdefault(each.model, set()).add((each.dataset, each.seed, each.sample_id))
        chosen = self.compared or [(first, second) for first, second in pairs(self.models) if answered[first] & answered[second]]
        return [Comparison.of(self.predictions, first, second).to_dict() for first, second in chosen]

    @cached_property
    def published(self) -> list[ParityRow]:
        """Ours beside the published figures, where there are any."""
        if self.backbone is None:
            return []
        told, shots = self.report.to_dict(), {name: self.shots.get(name, 0) for name in self.models}
        rows = (
            row
            for count in sorted({*shots.values()})
            for row in parity(told, backbone=self.backbone, shots=count)
            if shots[row.model] == count
        )
        return [row for row in rows if row.paper is not None or row.supplementary is not None]


def page(evaluation: Evaluation) -> str:
    """The HTML of an evaluation; no part of it asks for anything from outside."""
    report, models = evaluation.report, evaluation.models
    told, drawn = report.to_dict()["models"], _charts(evaluation)
    cards = gallery(evaluation.predictions, evaluation.samples, models, grid=evaluation.grid)
    script, style = (_source(name) for name in ("page.js", "page.css"))
    html = _environment().get_template("page.html").render(
        evaluation=evaluation,
        models=[{"name": name, "title": title(name), "slot": slot, **told[name]} for slot, name in enumerate(models)],
        pooled={name: sum((found.tally for found in model.datasets.values()), Tally()) for name, model in report.models.items()},
        parts=parts(report, models),
        compared=evaluation.comparisons,
        published=_beside(evaluation.published),
        charts=drawn,
        training=[chart for chart in drawn if chart.id.partition("-")[0] in {id for id, *_ in CURVES}],
        calibrations=_calibrations(evaluation.predictions, models),
        forms=STATUSES,
        rounds=report.rounds,
        cards=cards,
        data={
            "grid": evaluation.grid, "models": [title(name) for name in models], "names": models, "kinds": KINDS, "cards": cards.cards,
            "pair": [*chain(*(evaluation.compared or pairs(models))[-1:])],
        },
        limits={"cards": CARDS, "pictures": PICTURES},
        policy=POLICY + f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'",
        script=script,
        style=style,
        size=SIZE,
    )  # fmt: skip
    return html.replace(SIZE, f"{len(html.encode()) / 1e6:.1f} MB", 1)


def figures(evaluation: Evaluation) -> dict[str, str]:
    """The page's charts as SVG files by name."""
    style, template = _source("page.css"), _environment().get_template("charts.html")
    return {chart.id: str(template.module.drawn(chart, style)) for chart in _charts(evaluation)}  # type: ignore[attr-defined]


def title(model: str) -> str:
    """A model's name as people write it."""
    return TITLES.get(model, model)


def pairs(models: Sequence[str]) -> list[tuple[str, str]]:
    """Each model beside the one before it, and the last beside the first."""
    return list(dict.fromkeys([*pairwise(models), *([(models[0], models[-1])] if len(models) > 2 else [])]))


def read_log(path: Path) -> charts.Log:
    """A training's log: the numbers of each row, none where it ended before its first entry; raises ReportError for a file without steps."""
    if not path.is_file():
        raise ReportError(f"{path}: no such file. A training writes it: `dvc repro pa_sft sc_grpo`.")
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        rows = [_numbers(row) for row in reader]
    if "step" not in (reader.fieldnames or ()) or not all("step" in row for row in rows):
        raise ReportError(
            f"{path}: a training's log is a CSV file with a column `step`; found {', '.join(reader.fieldnames or ()) or 'nothing'}."
        )
    return rows


def _numbers(row: Mapping[str | None, Any]) -> dict[str, float]:
    found = {}
    for name, text in row.items():
        try:
            found[str(name)] = float(text)
        except (TypeError, ValueError):  # an empty field: this step did not log it
            continue
    return found


def _beside(rows: Sequence[ParityRow]) -> dict[str, Any]:
    """Published figures by data set and model, the mean last, and what is wrong with them."""
    found: dict[str, dict[str, ParityRow]] = {}
    for row in sorted(rows, key=lambda row: (row.dataset == "mean", row.dataset)):
        found.setdefault(row.dataset, {})[row.model] = row
    notes = list(dict.fromkeys(flag for each in found.values() for row in each.values() for flag in row.flags))
    return {"rows": found, "notes": notes}


def _charts(evaluation: Evaluation) -> list[Any]:
    report, models = evaluation.report, evaluation.models
    targets = () if evaluation.incomparable else evaluation.published
    found = [_forest(report, models, targets), charts.rates_chart(_rates(report, models)), _lengths(evaluation.predictions, models)]
    calibrated = _calibrations(evaluation.predictions, models)
    found += [charts.reliability(calibrated)] if calibrated else []
    for name, log in evaluation.logs.items():
        # The loss of a policy gradient starts at zero and says nothing.
        told = [curve for curve in CURVES if not (curve[0] == "loss" and "reward" in log[0])]
        place = re.sub(r"\W+", "-", name.lower())
        found += [charts.curve(f"{id}-{place}", f"{name}: {heading}", log, columns, unit) for id, heading, columns, unit in told]
    return [chart for chart in found if chart is not None]


def _forest(report: EvalReport, models: Sequence[str], published: Sequence[ParityRow]) -> charts.Forest | None:
    rows: list[tuple[str, str, int, float, list[float]]] = []
    for slot, name in enumerate(models):
        told = report.to_dict()["models"][name]
        found = {dataset: (entry["balanced_accuracy"], entry["balanced_accuracy_ci"]) for dataset, entry in told["datasets"].items()}
        if len(found) > 1:
            found["mean"] = (told["mean_balanced_accuracy"], told["mean_balanced_accuracy_ci"])
        rows += [(dataset, title(name), slot, value, bounds) for dataset, (value, bounds) in found.items() if value is not None]
    targets = [(row.dataset, title(row.model), row.paper) for row in published if row.paper is not None]
    order = sorted({row[0] for row in rows}, key=lambda name: (name == "mean", name))
    return charts.forest(order, rows, targets) if rows else None


def _rates(report: EvalReport, models: Sequence[str]) -> list[tuple[str, int, str, float, float, bool]]:
    points = []
    for slot, name in enumerate(models):
        tallies = {dataset: found.tally for dataset, found in report.models[name].datasets.items()}
        own = [(dataset, tally.tnr, tally.tpr) for dataset, tally in tallies.items() if tally.tnr is not None and tally.tpr is not None]
        points += [(title(name), slot, dataset, tnr, tpr, False) for dataset, tnr, tpr in own]
        if own:
            points.append((title(name), slot, "mean", fmean(tnr for _, tnr, _ in own), fmean(tpr for *_, tpr in own), True))
    return points


def _lengths(predictions: Sequence[Prediction], models: Sequence[str]) -> charts.Chart | None:
    counted = all(prediction.tokens for prediction in predictions)
    lengths: dict[str, list[int]] = {title(name): [] for name in models}
    for prediction in predictions:
        lengths[title(prediction.model)].append(prediction.tokens if counted else len(prediction.text))
    return charts.histogram(lengths, "tokens" if counted else "characters") if predictions else None


def _calibrations(predictions: Sequence[Prediction], models: Sequence[str]) -> list[tuple[str, int, Calibration]]:
    """The calibration of every model whose answers state P(yes), over all data sets."""
    found = []
    for slot, name in enumerate(models):
        stated = [(p, each.anomalous) for each in predictions if each.model == name and (p := each.p_yes) is not None]
        if stated:
            found.append((title(name), slot, Calibration.of([p for p, _ in stated], [int(defect) for _, defect in stated])))
    return found


def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    made = Environment(loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"percent": _percent, "signed": _signed, "shown": title, "combined": operator.or_, "zip": zip}
    return made


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}".replace("-", "−")


def _source(name: str) -> str:
    """The text of a file beside this one."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
