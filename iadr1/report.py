"""How well models inspect: predictions with their text, and the report of any number of them. Try `iadr1 report PREDICTIONS.jsonl --markdown`."""

from __future__ import annotations

import json
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from iadr1.agreement import conclusion
from iadr1.calibration import Calibration, best_threshold
from iadr1.defect_types import CATEGORY, type_score
from iadr1.errors import ReportError
from iadr1.locations import cells
from iadr1.samples import write_lines
from iadr1.tallies import STATUSES, Tally
from iadr1.verdict import Verdict

SCHEMA = 2
ROUNDS = 1000
CONFIDENCE = 95.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one model said about one sample, word for word, with the annotation it is judged by.

    `p_yes`, `finish` and `seconds` are those of the engine's answer, None where it does not tell; what is None of them is not written.
    """

    sample_id: str
    dataset: str
    category: str
    model: str
    anomalous: bool
    text: str
    truncated: bool = False
    tokens: int = 0
    visibility: float | None = None
    location: str | None = None
    type: str | None = None
    reader: Literal["tags", "free"] = "tags"
    seed: int = 0
    p_yes: float | None = None
    finish: str | None = None
    seconds: float | None = None

    @property
    def verdict(self) -> Verdict:
        """The reading of the text: by tags for a tuned model, as free text for a base model."""
        reader = Verdict.parse if self.reader == "tags" else Verdict.read
        return reader(self.text, truncated=self.truncated)

    @classmethod
    def from_json(cls, line: str, *, source: str = "prediction") -> Prediction:
        """The prediction of one JSON line; raises ReportError that names `source` when the line is not one."""
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ReportError(f"{source}: not JSON ({error}). Re-run `dvc repro evaluate`.") from error
        if not isinstance(row, dict) or not _REQUIRED <= row.keys() <= _KNOWN:
            found = sorted(row) if isinstance(row, dict) else type(row).__name__
            raise ReportError(f"{source}: a prediction has {sorted(_REQUIRED)} and optionally {sorted(_KNOWN - _REQUIRED)}; found {found}.")
        wrong = [name for name, value in row.items() if type(value) not in _TYPES[name]]
        if wrong or row.get("reader", "tags") not in ("tags", "free"):
            name = wrong[0] if wrong else "reader"
            expected = "tags or free" if name == "reader" else " or ".join(_NAMES[kind] for kind in _TYPES[name])
            raise ReportError(f"{source}: {name} is {expected}; found {str(row[name])[:40]!r}.")
        if not 0 <= (row.get("p_yes") or 0) <= 1:
            raise ReportError(f"{source}: p_yes is a probability, 0 to 1; found {row['p_yes']!r}.")
        return cls(**row)

    def to_json(self) -> str:
        """One JSON line, fields in the order of this class."""
        row = asdict(self)
        return json.dumps({name: value for name, value in row.items() if value is not None or name not in _UNTOLD}, ensure_ascii=False)


_UNTOLD = ("p_yes", "finish", "seconds")
_KNOWN = {item.name for item in fields(Prediction)}
_REQUIRED = {"sample_id", "dataset", "category", "model", "anomalous", "text"}
_NAMES: dict[type, str] = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", type(None): "null"}
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("sample_id", "dataset", "category", "model", "text", "reader"), (str,)),
    **dict.fromkeys(("anomalous", "truncated"), (bool,)),
    **dict.fromkeys(("tokens", "seed"), (int,)),
    **dict.fromkeys(("location", "type", "finish"), (str, type(None))),
    **dict.fromkeys(("visibility", "p_yes", "seconds"), (float, int, type(None))),
}


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions of a JSONL file; raises ReportError with file and line."""
    return list(iterate_predictions(path))


def iterate_predictions(path: Path) -> Iterator[Prediction]:
    """The predictions of a JSONL file one by one, for files that do not fit into memory."""
    if not path.is_file():
        raise ReportError(f"{path}: no such file. Run `dvc repro evaluate` to make it.")
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            yield Prediction.from_json(line, source=f"{path}:{number}")


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write predictions as JSONL, whole or not at all."""
    write_lines(path, (prediction.to_json() for prediction in predictions))


@dataclass(frozen=True)
class DatasetReport:
    """One model on one dataset: tallies of each class, of each annotated defect type, and of the third of defects that is hardest to see."""

    classes: Mapping[str, Tally]
    hardest: Tally | None = None
    seeds: int = 1
    types: Mapping[str, Tally] = field(default_factory=dict)
    calibration: Calibration | None = None

    @cached_property
    def tally(self) -> Tally:
        """All classes pooled, as in the paper."""
        return sum(self.classes.values(), Tally())

    @property
    def balanced_accuracy(self) -> float | None:
        """Balanced accuracy in percent, pooled over classes."""
        return self.tally.balanced_accuracy

    @property
    def macro_balanced_accuracy(self) -> float | None:
        """Mean of the classes' balanced accuracies, where a class has both kinds of images."""
        return _mean(tally.balanced_accuracy for tally in self.classes.values())

    def resampled(self, name: str, rounds: int) -> Any:
        """Balanced accuracies of bootstrap samples, drawn from a generator that belongs to the dataset's name."""
        return self.tally.resampled(_generator(name), rounds, self.seeds)

    def to_dict(self, name: str, rounds: int) -> dict[str, Any]:
        """All rates, with the counts that they follow from; `p_yes` only where answers have one."""
        return {
            **self.tally.rates(),
            **({} if self.calibration is None else {"p_yes": self.calibration.to_dict()}),
            "balanced_accuracy_ci": interval(self.resampled(name, rounds)),
            "macro_balanced_accuracy": self.macro_balanced_accuracy,
            "hardest_third": None if self.hardest is None else self.hardest.rates(),
            "classes": {category: tally.rates() for category, tally in self.classes.items()},
            "types": {kind: {"anomalous": tally.anomalous, "tpr": tally.tpr} for kind, tally in self.types.items()},
            "counts": {category: tally.to_dict() for category, tally in self.classes.items()},
            "type_counts": {kind: tally.to_dict() for kind, tally in self.types.items()},
            "seeds": self.seeds,
            "hardest_counts": None if self.hardest is None else self.hardest.to_dict(),
        }


@dataclass(frozen=True)
class ModelReport:
    """One model on all its datasets, seeds pooled; `seeds` holds the mean balanced accuracy of each seed alone."""

    datasets: Mapping[str, DatasetReport]
    seeds: Mapping[int, float | None] = field(default_factory=dict)

    @property
    def mean_balanced_accuracy(self) -> float | None:
        """Unweighted mean over datasets, as in the paper."""
        return _mean(report.balanced_accuracy for report in self.datasets.values())

    def mean_ci(self, rounds: int = ROUNDS) -> list[float] | None:
        """The interval of the mean over datasets, each resampled on its own."""
        drawn = [sampled for name, report in self.datasets.items() if (sampled := report.resampled(name, rounds)) is not None]
        return interval(sum(drawn) / len(drawn)) if drawn else None


@dataclass(frozen=True)
class EvalReport:
    """Models by name; everything but the tallies is derived from them."""

    models: Mapping[str, ModelReport]
    rounds: int = ROUNDS

    @classmethod
    def of(
        cls, predictions: Iterable[Prediction], *, grid: int = 3, rounds: int = ROUNDS, validation: Iterable[Prediction] = ()
    ) -> EvalReport:
        """The report of predictions in any order; raises ReportError when one sample was answered twice by one model and seed.

        On the predictions of `validation` each model's threshold of P(yes) is chosen.
        """
        counts = _Counts(grid, thresholds(validation))
        for prediction in predictions:
            counts.add(prediction)
        return cls(counts.models(), rounds)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {"schema": SCHEMA, "rounds": self.rounds, "models": {name: self._model(report) for name, report in self.models.items()}}

    def _model(self, report: ModelReport) -> dict[str, Any]:
        return {
            "datasets": {name: dataset.to_dict(name, self.rounds) for name, dataset in report.datasets.items()},
            "mean_balanced_accuracy": report.mean_balanced_accuracy,
            "mean_balanced_accuracy_ci": report.mean_ci(self.rounds),
            "seeds": {str(seed): value for seed, value in report.seeds.items()},
        }

    def to_json(self) -> str:
        """The report as JSON with its schema version; percentages are not rounded."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> EvalReport:
        """The report of its JSON; raises ReportError when it is another form or version."""
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise ReportError(f"the report is not JSON ({error}). Re-run `dvc repro evaluate`.") from error
        found = raw.get("schema") if isinstance(raw, dict) else None
        if found != SCHEMA:
            raise ReportError(f"the report has schema {found!r}; this version reads {SCHEMA}. Re-run `dvc repro evaluate`.")
        try:
            return cls({name: _model_from(row) for name, row in raw["models"].items()}, raw["rounds"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ReportError(f"the report is not whole ({type(error).__name__}: {error}). Re-run `dvc repro evaluate`.") from error


def thresholds(validation: Iterable[Prediction]) -> dict[str, float | None]:
    """The best threshold of P(yes) for each model that tells it, on images that are not those of the test."""
    found: dict[str, tuple[list[float], list[int]]] = {}
    for prediction in validation:
        chances, labels = found.setdefault(prediction.model, ([], []))
        if prediction.p_yes is not None:
            chances.append(prediction.p_yes)
            labels.append(prediction.anomalous)
    return {model: best_threshold(*told) for model, told in found.items()}


def interval(drawn: Any, confidence: float = CONFIDENCE) -> list[float] | None:
    """The percentile interval of resampled values."""
    if drawn is None:
        return None
    import numpy as np

    tail = (100.0 - confidence) / 2
    return [float(value) for value in np.percentile(drawn, [tail, 100.0 - tail])]


class _Counts:
    """The one pass over predictions: integers for each model, seed, dataset and class."""

    def __init__(self, grid: int, thresholds: Mapping[str, float | None]) -> None:
        self.grid, self.thresholds = grid, thresholds
        self.tallies: dict[tuple[str, int, str, str], list[Any]] = {}
        self.seen: dict[tuple[str, int, str], set[str]] = {}
        self.kinds: dict[tuple[str, str, str], list[int]] = {}
        self.visible: dict[tuple[str, str], tuple[array[float], array[int]]] = {}
        self.chances: dict[tuple[str, str], tuple[array[float], array[int], list[int]]] = {}

    def add(self, prediction: Prediction) -> None:
        """Count one prediction."""
        verdict = prediction.verdict
        right = verdict.anomalous is prediction.anomalous
        key = (prediction.model, prediction.seed, prediction.dataset)
        self._once(key, prediction.sample_id)
        counts = self.tallies.get((*key, prediction.category))
        if counts is None:
            counts = self.tallies[(*key, prediction.category)] = [0] * len(_COUNTED) + [dict.fromkeys(STATUSES, 0)]
        side = 1 if prediction.anomalous else 0
        counts[side] += 1
        counts[2 + side] += right
        counts[4 + side] += verdict.anomalous is None
        counts[13] += prediction.tokens
        counts[14][verdict.status] += 1
        if side and prediction.type:
            kind = self.kinds.setdefault((prediction.model, prediction.dataset, prediction.type), [0, 0, 0])
            kind[0] += 1
            kind[1] += right
            kind[2] += verdict.anomalous is None
        # A base model is asked for yes or no only: it has no location, type or reasoning to be right about.
        if right and side and prediction.reader == "tags":
            self._count_evidence(counts, verdict, prediction)
        if verdict.anomalous is not None and verdict.reasoning and prediction.reader == "tags":
            stated = conclusion(verdict.reasoning)
            counts[11] += stated is not None
            counts[12] += stated is verdict.anomalous
        self._count_chance(prediction, side)
        if side and prediction.visibility is not None:
            visibilities, rights = self.visible.setdefault((prediction.model, prediction.dataset), (array("d"), array("b")))
            visibilities.append(prediction.visibility)
            rights.append(right)

    def _count_evidence(self, counts: list[Any], verdict: Verdict, prediction: Prediction) -> None:
        expected = cells(prediction.location, self.grid) if prediction.location else None
        if expected is not None:
            counts[6] += 1
            counts[7] += verdict.location is not None and cells(verdict.location, self.grid) == expected
        if prediction.type:
            points = type_score(verdict.type, prediction.type) if verdict.type else 0.0
            counts[8] += 1
            counts[9] += points >= CATEGORY
            counts[10] += points

    def _count_chance(self, prediction: Prediction, side: int) -> None:
        chances, labels, missing = self.chances.setdefault((prediction.model, prediction.dataset), (array("d"), array("b"), [0, 0]))
        if prediction.p_yes is None:
            missing[side] += 1
        else:
            chances.append(prediction.p_yes)
            labels.append(side)

    def _once(self, key: tuple[str, int, str], sample_id: str) -> None:
        seen = self.seen.setdefault(key, set())
        before = len(seen)
        seen.add(sample_id)
        if len(seen) == before:
            raise ReportError(f"{key[2]}: {sample_id} was answered twice by {key[0]} (seed {key[1]}). Give each predictions file once.")

    def models(self) -> dict[str, ModelReport]:
        """The report of each model, in order of name."""
        return {model: self._model(model) for model in sorted({key[0] for key in self.tallies})}

    def _model(self, model: str) -> ModelReport:
        seeds = sorted({key[1] for key in self.tallies if key[0] == model})
        alone = {seed: ModelReport(self._datasets(model, {seed})).mean_balanced_accuracy for seed in seeds}
        return ModelReport(self._datasets(model, set(seeds)), alone)

    def _datasets(self, model: str, seeds: set[int]) -> dict[str, DatasetReport]:
        classes: dict[str, dict[str, Tally]] = {}
        for (name, seed, dataset, category), counts in sorted(self.tallies.items(), key=lambda item: item[0]):
            if name == model and seed in seeds:
                found = classes.setdefault(dataset, {})
                found[category] = found.get(category, Tally()) + _tally(counts)
        runs = {dataset: sum((model, seed, dataset) in self.seen for seed in seeds) for dataset in classes}
        return {
            name: DatasetReport(
                found, self._hardest(model, name, found), runs[name], self._types(model, name), self._calibration(model, name)
            )
            for name, found in classes.items()
        }

    def _calibration(self, model: str, dataset: str) -> Calibration | None:
        chances, labels, missing = self.chances[model, dataset]
        return Calibration.of(chances, labels, (missing[0], missing[1]), self.thresholds.get(model)) if chances else None

    def _types(self, model: str, dataset: str) -> dict[str, Tally]:
        found = sorted((kind, counts) for (name, where, kind), counts in self.kinds.items() if (name, where) == (model, dataset))
        return {kind: Tally(anomalous=n, true_anomalous=right, unreadable_anomalous=unread) for kind, (n, right, unread) in found}

    def _hardest(self, model: str, dataset: str, classes: Mapping[str, Tally]) -> Tally | None:
        """The third of the anomalous images with the smallest visibility (equals at its edge included), and all normal ones."""
        if (model, dataset) not in self.visible:
            return None
        import numpy as np

        visibilities, rights = (np.asarray(values) for values in self.visible[model, dataset])
        edge = np.partition(visibilities, (len(visibilities) - 1) // 3)[(len(visibilities) - 1) // 3]
        hard = visibilities <= edge
        pooled = sum(classes.values(), Tally())
        return Tally(
            normal=pooled.normal, anomalous=int(hard.sum()), true_normal=pooled.true_normal, true_anomalous=int(rights[hard].sum()),
            unreadable_normal=pooled.unreadable_normal,
        )  # fmt: skip


_COUNTED = [item.name for item in fields(Tally)][:14]


def _tally(counts: list[Any]) -> Tally:
    named = dict(zip(_COUNTED, counts[:14], strict=True))
    return Tally(**named, statuses={status: count for status, count in counts[14].items() if count})


def _model_from(row: Mapping[str, Any]) -> ModelReport:
    return ModelReport(
        {name: _dataset_from(entry) for name, entry in row["datasets"].items()}, {int(seed): value for seed, value in row["seeds"].items()}
    )


def _dataset_from(row: Mapping[str, Any]) -> DatasetReport:
    classes, types = ({name: Tally(**counts) for name, counts in row[key].items()} for key in ("counts", "type_counts"))
    hardest = None if row["hardest_counts"] is None else Tally(**row["hardest_counts"])
    return DatasetReport(classes, hardest, row["seeds"], types, Calibration.from_dict(row["p_yes"]) if "p_yes" in row else None)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _generator(name: str) -> Any:
    """A generator of its own for each dataset, so that a report of fewer datasets has the same intervals."""
    import numpy as np

    return np.random.default_rng(zlib.crc32(name.encode()))
