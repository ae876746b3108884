"""The page of a run: every prediction with its image, beside the training's curves and the published figures."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from iadr1.params import Params
from iadr1.published import published_name
from iadr1.report import Prediction, iterate_predictions
from iadr1.report_page import Evaluation, pairs, read_log, title
from iadr1.report_tables import markdown_comparison, markdown_parity
from iadr1.samples import Sample, read_samples
from iadr1.tallies import Tally
from tasks._run import Workspace
from tasks._tracking import lineage_of

# Whose figures stand beside those of a model that the paper does not have.
STAND_IN = "LLaVA-OneVision-SI-0.5B"
LOGS = ("pa_sft", "sc_grpo")
RATES = ("tpr", "tnr", "unreadable", "location_accuracy", "type_accuracy", "tokens")


def evaluation(params: Params, work: Workspace, *, registered: str) -> Evaluation:
    """What the page of a run shows, `registered` as which version; with several counts of reference images, each count is a model of its own."""
    first, *others = params.evaluate.shots
    predictions = [*_predictions(params, work, shots=first)]
    for shots in others:
        predictions += (replace(each, model=f"{each.model} {shots}-shot") for each in _predictions(params, work, shots=shots))
    published = published_name(params.pa_sft.backbone)
    return Evaluation(
        predictions,
        samples=[*_samples(params, work)],
        compared=[
            pair
            for end in ("", *(f" {shots}-shot" for shots in others))
            for pair in pairs([f"{name}{end}" for name in params.evaluate.models])
        ],
        backbone=published or STAND_IN,
        shots={each.model: shots for shots in others for each in predictions if each.model.endswith(f" {shots}-shot")},
        incomparable=_incomparable(params, published),
        logs={title(name): log for name in LOGS if (path := work.reports / f"{name}.csv").is_file() and (log := read_log(path))},
        facts={
            "Experiment": work.name,
            "Backbone": params.pa_sft.backbone,
            "Seed": str(params.seed),
            **_lineage(work),
            "Registered": registered,
        },
        title=f"Evaluation of {params.register.name}",
        grid=params.prepare.grid,
    )


def comparison(evaluation: Evaluation) -> str:
    """For a pull request: the models compared on the same images, and beside the published figures."""
    tables = [markdown_comparison(pair) for pair in evaluation.comparisons]
    note = f"Not comparable: {evaluation.incomparable}\n" if evaluation.incomparable else ""
    parity = markdown_parity(evaluation.published, str(evaluation.backbone)) if evaluation.published else ""
    return "\n".join(filter(None, [*tables, note, parity]))


def figures_of(evaluation: Evaluation) -> dict[str, float | None]:
    """What releases are compared by: rates of every model over all images and of every data set, and the differences of models with their intervals."""
    found: dict[str, float | None] = {}
    for name, model in evaluation.report.models.items():
        rates = sum((dataset.tally for dataset in model.datasets.values()), Tally()).rates()
        found |= {f"{name}.{rate}": rates[rate] for rate in RATES}
        found |= {f"{name}.{dataset}": report.balanced_accuracy for dataset, report in model.datasets.items()}
    for pair in evaluation.comparisons:
        low, high = pair["mean_difference_ci"] or (None, None)
        name = f"{pair['second']}_minus_{pair['first']}"
        found |= {name: pair["mean_difference"], f"{name}.low": low, f"{name}.high": high}
    return found


def settings_of(params: Params) -> dict[str, Any]:
    """What releases differ in most often."""
    return {
        "seed": params.seed,
        "pa_sft.backbone": params.pa_sft.backbone,
        "prepare.pa_sft_rows": params.prepare.pa_sft_rows,
        "prepare.sc_grpo_rows": params.prepare.sc_grpo_rows,
        "sc_grpo.preset": params.sc_grpo.preset,
        "sc_grpo.recipe": params.sc_grpo.recipe,
        "evaluate.engine": params.evaluate.engine,
    }


def _predictions(params: Params, work: Workspace, *, shots: int) -> Iterator[Prediction]:
    for dataset in params.evaluate.datasets:
        yield from iterate_predictions(work.predictions / f"{dataset}-{shots}.jsonl")


def _samples(params: Params, work: Workspace) -> Iterator[Sample]:
    for dataset in params.evaluate.datasets:
        yield from read_samples(work.prepared / "test" / f"{dataset}.jsonl")


def _incomparable(params: Params, published: str | None) -> str | None:
    images = "the images were made by the stage fetch: they have the names and forms of the benchmarks, and are not their images."
    model = f"the model began as {params.pa_sft.backbone}, which the paper does not have."
    reasons = [images] * (params.fetch.source == "synthetic") + [model] * (published is None)
    return " ".join(reason[0].upper() + reason[1:] for reason in reasons) or None


def _lineage(work: Workspace) -> dict[str, str]:
    told = lineage_of(work)
    return {
        "Commit": told["git_commit"][:10] + (" with changes" if told["git_dirty"] == "true" else ""),
        "DVC lock": told["dvc_lock_sha256"][:10],
    }
