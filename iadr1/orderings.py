"""Whether one row of a table is better than another: differences of balanced accuracy with intervals, and what they say about a claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from iadr1.comparison import Comparison
from iadr1.report import CONFIDENCE, Prediction

Judgement = Literal["holds", "does not hold", "cannot be told"]


@dataclass(frozen=True, slots=True)
class Difference:
    """The second row's mean balanced accuracy minus the first's, in points: of each seed, and the interval of their mean over images."""

    first: str
    second: str
    by_seed: Mapping[int, float]
    images_ci: Sequence[float] | None

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return fmean(self.by_seed.values())

    @property
    def seeds_ci(self) -> list[float] | None:
        """Student's t interval of the mean over seeds; None for one seed."""
        return t_interval(list(self.by_seed.values()))

    @property
    def judgement(self) -> Judgement:
        """By the interval over seeds, which holds the chance of training too; of one seed by that over images."""
        return judgement(self.seeds_ci or self.images_ci)

    def to_dict(self) -> dict[str, Any]:
        """All figures by name."""
        return {
            **{"first": self.first, "second": self.second, "mean": self.mean},
            "by_seed": {str(seed): value for seed, value in self.by_seed.items()},
            **{"seeds_ci": self.seeds_ci, "images_ci": None if self.images_ci is None else list(self.images_ci)},
            "judgement": self.judgement,
        }


def difference(first: Sequence[Prediction], second: Sequence[Prediction], *, labels: tuple[str, str]) -> Difference | None:
    """Two rows on the images and seeds that both answered; None where no data set has both classes."""
    named = [*_named(first, "first"), *_named(second, "second")]
    by_seed = {}
    for seed in sorted({one.seed for one in first} & {one.seed for one in second}):
        value = Comparison.of((one for one in named if one.seed == seed), "first", "second").mean_difference
        if value is not None:
            by_seed[seed] = value
    if not by_seed:
        return None
    over_images = Comparison.of((one for one in named if one.seed in by_seed), "first", "second").to_dict()
    return Difference(*labels, by_seed, over_images["mean_difference_ci"])


def judgement(interval: Sequence[float] | None) -> Judgement:
    """What an interval of a difference says about the claim that it is above zero."""
    if interval is None or interval[0] <= 0 <= interval[1]:
        return "cannot be told"
    return "holds" if interval[0] > 0 else "does not hold"


def together(judgements: Iterable[Judgement]) -> Judgement:
    """Of a claim with several parts: it holds when each part does, and does not when one does not."""
    found = set(judgements)
    if "does not hold" in found:
        return "does not hold"
    return "holds" if found == {"holds"} else "cannot be told"


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> list[float] | None:
    """Student's t interval of a mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf(0.5 + confidence / 200, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return [fmean(values) - half, fmean(values) + half]


def _named(predictions: Iterable[Prediction], model: str) -> list[Prediction]:
    from dataclasses import replace

    return [replace(one, model=model) for one in predictions]
