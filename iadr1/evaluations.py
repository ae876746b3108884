"""An evaluation as the gates take it: predictions of one model, from a run's folder, from a file, or from a registered version."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from iadr1.errors import ReportError
from iadr1.gates import Case, Evaluation
from iadr1.params import Params, suggestion
from iadr1.registry import SCHEME, named
from iadr1.registry.store import Store
from iadr1.report import Prediction, iterate_predictions

CANDIDATE = "sc_grpo"


def evaluation(where: str, *, shots: int, model: str = CANDIDATE) -> Evaluation:
    """The evaluation in a folder of predictions, a file of them, or of `models:/NAME@ALIAS`; raises ReportError or ModelError when there is none."""
    if where.startswith(SCHEME):
        name = named(where)
        return registered_evaluation(Store.at(name.name), name.version)
    path = Path(where)
    files = sorted(path.glob(f"*-{shots}.jsonl")) if path.is_dir() else [path]
    if not files:
        raise ReportError(f"{path}: no predictions with {shots} reference images (*-{shots}.jsonl). Run `dvc repro evaluate` to make them.")
    return Evaluation(where, of_model((one for file in files for one in iterate_predictions(file)), model, where))


def registered_evaluation(store: Store, version: int) -> Evaluation:
    """The evaluation that a version was registered with, and what its tags tell of its origin."""
    known = store.version(version)
    lines = store.evaluation(version)
    predictions = [Prediction.from_json(line, source=f"{known}: prediction {number}") for number, line in enumerate(lines, 1)]
    return Evaluation(str(known), predictions, known.tags)


def of_model(predictions: Iterable[Prediction], model: str, where: str) -> list[Prediction]:
    """The predictions of a model; of the only one when there is one; raises ReportError for what are no predictions of one training."""
    found: dict[str, list[Prediction]] = {}
    for one in predictions:
        found.setdefault(one.model, []).append(one)
    if not found:
        raise ReportError(f"{where}: no predictions. Run `dvc repro evaluate` to make them.")
    chosen = next(iter(found.values())) if len(found) == 1 else found.get(model)
    if chosen is None:
        raise ReportError(f"{where}: no predictions of {model}; {suggestion(model, found)} Name one with --model.")
    seeds = {one.seed for one in chosen}
    if len(seeds) > 1:
        raise ReportError(
            f"{where}: predictions of {len(seeds)} trainings (seeds {', '.join(map(str, sorted(seeds)))}). Give those of one."
        )
    return chosen


def case_of(candidate: Evaluation, live: Evaluation | None, params: Params) -> Case:
    """What the gates decide on, with the data sets and the grid of the parameters."""
    return Case(candidate, datasets(params), live, params.prepare.grid)


def datasets(params: Params) -> Sequence[str]:
    """The data sets that a candidate has to answer."""
    return list(params.evaluate.datasets)
