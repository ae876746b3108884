"""The page of a run: every prediction with its image, beside the training's curves and the published figures."""

from collections.abc import Iterator
from dataclasses import replace

from iadr1.params import Params
from iadr1.published import published_name
from iadr1.report import Prediction, iterate_predictions
from iadr1.report_page import Evaluation, pairs, read_log, title
from iadr1.samples import Sample, read_samples
from tasks._run import Workspace
from tasks._tracking import lineage_of

# Whose figures stand beside those of a model that the paper does not have.
STAND_IN = "LLaVA-OneVision-SI-0.5B"
LOGS = ("pa_sft", "sc_grpo")


def evaluation(params: Params, work: Workspace) -> Evaluation:
    """What the page of a run shows; with several counts of reference images, each count is a model of its own."""
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
        logs={title(name): read_log(path) for name in LOGS if (path := work.reports / f"{name}.csv").is_file()},
        facts={
            "Experiment": work.name,
            "Backbone": params.pa_sft.backbone,
            "Seed": str(params.seed),
            "Commit": _commit(work),
        },
        title=f"Evaluation of {params.register.name}",
        grid=params.prepare.grid,
    )


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


def _commit(work: Workspace) -> str:
    lineage = lineage_of(work)
    return lineage["git_commit"][:10] + (" with changes" if lineage["git_dirty"] == "true" else "")
