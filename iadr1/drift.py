"""Whether what a model sees and says has drifted from a reference: one distance a measure, judged only where chance does not explain it.

Formulas, limits and what they mean: docs/flows.md.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from iadr1.errors import ReportError
from iadr1.images import open_image
from iadr1.report import interval
from iadr1.samples import write_lines
from iadr1.tallies import Tally

ROUNDS = 10_000  # resampled accuracies: their far tails decide

Outcome = Literal["drift", "steady", "undecided"]


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of an image and said about it; `anomalous` is its label where one has come back, `p_yes` None where the engine does not tell.

    Brightness and contrast are mean and standard deviation of the grey values (0 to 1), sharpness the standard deviation of their Laplacian, size
    the square root of the number of pixels.
    """

    image: str
    answer: bool | None
    p_yes: float | None
    anomalous: bool | None
    brightness: float
    contrast: float
    sharpness: float
    size: float

    @classmethod
    def from_json(cls, line: str, *, source: str) -> "Observation":
        """The observation of one JSON line; raises ReportError that names `source` when the line is not one."""
        try:
            return cls(**json.loads(line))
        except (ValueError, TypeError) as error:
            names = ", ".join(field.name for field in fields(cls))
            raise ReportError(f"{source}: not an observation ({error}). One has {names}; `python -m tasks._watch` writes them.") from error


def look_of(path: str | Path) -> dict[str, float]:
    """Brightness, contrast, sharpness and size of an image; raises DatasetError where it cannot be read."""
    import numpy as np

    grey = np.asarray(open_image(path).convert("L"), dtype=np.float32) / 255
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    sharpness = float(laplacian.std()) if inner.size else 0.0
    return {"brightness": float(grey.mean()), "contrast": float(grey.std()), "sharpness": sharpness, "size": float(grey.size) ** 0.5}


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a difference is drift.

    `distance` is that of distributions, 0 to 1; `drop` of balanced accuracy, in points; `alpha` the chance of a false alarm that all measures
    together may have; with fewer images than `minimum` on either side nothing is decided.
    """

    distance: float = 0.2
    drop: float = 5.0
    alpha: float = 0.01
    minimum: int = 30


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure: what was typical before and now, how far apart they are, how likely chance alone is as far, and whether that is drift."""

    name: str
    reference: float
    new: float
    distance: float
    limit: float
    p: float | None
    interval: tuple[float, float] | None
    drifted: bool


@dataclass(frozen=True, slots=True)
class Drift:
    """All measures that could be taken, and how many images they were taken of."""

    images: tuple[int, int]
    limits: Limits
    measures: tuple[Measure, ...]

    @classmethod
    def of(cls, reference: Sequence[Observation], new: Sequence[Observation], limits: Limits) -> "Drift":
        """How far `new` is from `reference`."""
        # Bonferroni: each measure may have its part of the chance of a false alarm.
        alpha = limits.alpha / (2 + len(VALUES))
        found = [_answers(reference, new, limits, alpha)] if reference and new else []
        found += [measure for name, value in VALUES.items() if (measure := _values(name, value, reference, new, limits, alpha))]
        accuracy = _accuracy(reference, new, limits, alpha)
        return cls((len(reference), len(new)), limits, (*found, *([accuracy] if accuracy else [])))

    @property
    def verdict(self) -> Outcome:
        """Drift when a measure says so, undecided with too few images."""
        if min(self.images) < self.limits.minimum:
            return "undecided"
        return "drift" if any(measure.drifted for measure in self.measures) else "steady"

    @property
    def reason(self) -> str:
        """The verdict in a sentence."""
        if self.verdict == "undecided":
            return f"{self.images[1]} new images and {self.images[0]} of reference: at least {self.limits.minimum} of each are needed"
        drifted = [f"{measure.name} (distance {measure.distance:.2f})" for measure in self.measures if measure.drifted]
        return f"drift of {', '.join(drifted)}" if drifted else f"none of {len(self.measures)} measures has drifted"

    def to_dict(self) -> dict[str, Any]:
        """The verdict and everything that it follows from, as plain values."""
        return {"verdict": self.verdict, "reason": self.reason, **asdict(self)}


VALUES: Mapping[str, Callable[[Observation], float | None]] = {
    "p_yes": lambda one: one.p_yes,
    "brightness": lambda one: one.brightness,
    "contrast": lambda one: one.contrast,
    "sharpness": lambda one: one.sharpness,
    "size": lambda one: one.size,
}


def _answers(reference: Sequence[Observation], new: Sequence[Observation], limits: Limits, alpha: float) -> Measure:
    """Yes, no and unreadable: half the sum of the differences of their shares, tested by chi-square."""
    import numpy as np
    from scipy.stats import chi2_contingency

    counts = np.array([[sum(one.answer is answer for one in side) for answer in (True, False, None)] for side in (reference, new)])
    shares = counts / counts.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    seen = counts[:, counts.any(axis=0)]
    p = float(chi2_contingency(seen).pvalue) if seen.shape[1] > 1 else 1.0
    yes = shares[:, 0]
    return Measure("answers", float(yes[0]), float(yes[1]), distance, limits.distance, p, None, distance >= limits.distance and p <= alpha)


def _values(
    name: str,
    value: Callable[[Observation], float | None],
    reference: Sequence[Observation],
    new: Sequence[Observation],
    limits: Limits,
    alpha: float,
) -> Measure | None:
    """A number: the largest difference of the two distribution functions (Kolmogorov-Smirnov); None where one side has none."""
    import numpy as np
    from scipy.stats import ks_2samp

    before, now = ([found for one in side if (found := value(one)) is not None] for side in (reference, new))
    if not before or not now:
        return None
    tested = ks_2samp(before, now)
    distance, p = float(tested.statistic), float(tested.pvalue)
    drifted = distance >= limits.distance and p <= alpha
    return Measure(name, float(np.median(before)), float(np.median(now)), distance, limits.distance, p, None, drifted)


def _accuracy(reference: Sequence[Observation], new: Sequence[Observation], limits: Limits, alpha: float) -> Measure | None:
    """Balanced accuracy where labels have come back: drift when it has dropped by the limit, and the interval of the difference is below 0."""
    import numpy as np

    before, now = _tally(reference), _tally(new)
    draws = [tally.resampled(np.random.default_rng(side), ROUNDS) for side, tally in enumerate((before, now))]
    if draws[0] is None or draws[1] is None or before.balanced_accuracy is None or now.balanced_accuracy is None:
        return None
    low, high = interval(draws[1] - draws[0], 100 - 200 * alpha) or (0.0, 0.0)
    drop = before.balanced_accuracy - now.balanced_accuracy
    drifted = drop >= limits.drop and high < 0
    return Measure("balanced_accuracy", before.balanced_accuracy, now.balanced_accuracy, drop, limits.drop, None, (low, high), drifted)


def _tally(observations: Iterable[Observation]) -> Tally:
    labelled = [one for one in observations if one.anomalous is not None]
    right = [one for one in labelled if one.answer is one.anomalous]
    return Tally(
        normal=sum(not one.anomalous for one in labelled),
        anomalous=sum(bool(one.anomalous) for one in labelled),
        true_normal=sum(not one.anomalous for one in right),
        true_anomalous=sum(bool(one.anomalous) for one in right),
    )


def read_observations(path: Path) -> list[Observation]:
    """The observations of a JSONL file; raises ReportError with file and line."""
    if not path.is_file():
        raise ReportError(f"{path}: no such file. `python -m tasks._watch` writes what it has observed to reports/watch/.")
    with path.open(encoding="utf-8") as lines:
        return [Observation.from_json(line, source=f"{path}:{number}") for number, line in enumerate(lines, 1)]


def write_observations(path: Path, observations: Iterable[Observation]) -> None:
    """Write observations as JSONL, whole or not at all."""
    write_lines(path, (json.dumps(asdict(one), ensure_ascii=False) for one in observations))


def markdown(drift: Drift) -> str:
    """The verdict with its table."""
    from iadr1.report_tables import table

    rows = [
        [
            measure.name, f"{measure.reference:.3g}", f"{measure.new:.3g}", f"{measure.distance:.3g}", f"{measure.limit:g}",
            f"p = {measure.p:.2g}" if measure.p is not None else "[{:.1f}, {:.1f}]".format(*measure.interval or ()),
            "drift" if measure.drifted else "steady",
        ]
        for measure in drift.measures
    ]  # fmt: skip
    head = ["measure", "reference", "new", "distance", "limit", "chance", "verdict"]
    return f"**{drift.verdict}**: {drift.reason}. {drift.images[1]} new images against {drift.images[0]}.\n\n{table(head, rows)}\n"
