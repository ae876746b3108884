"""Two models on the same images: who is right where the other is wrong. Try `iadr1 report PREDICTIONS.jsonl --compare A B`."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from iadr1.errors import ReportError
from iadr1.report import ROUNDS, Prediction, interval


@dataclass(frozen=True)
class Pairs:
    """On one dataset's shared images of each label: both right, only the first, only the second, neither; over all seeds.

    Several seeds see the same images, so tests and intervals count each image once.
    """

    dataset: str
    normal: tuple[int, int, int, int]
    anomalous: tuple[int, int, int, int]
    seeds: int = 1

    @property
    def n(self) -> int:
        """The number of shared images."""
        return sum(self.normal) + sum(self.anomalous)

    @property
    def only_first(self) -> int:
        """Images that only the first model gets right."""
        return self.normal[1] + self.anomalous[1]

    @property
    def only_second(self) -> int:
        """Images that only the second model gets right."""
        return self.normal[2] + self.anomalous[2]

    @property
    def difference(self) -> float | None:
        """Balanced accuracy of the second model minus that of the first, in percent."""
        if not sum(self.normal) or not sum(self.anomalous):
            return None
        return 50.0 * sum((label[2] - label[1]) / sum(label) for label in (self.normal, self.anomalous))

    @cached_property
    def p_value(self) -> float:
        """McNemar's exact test: how likely so lopsided a disagreement is between equal models."""
        first, second = round(self.only_first / self.seeds), round(self.only_second / self.seeds)
        if not first + second:
            return 1.0
        from scipy.stats import binomtest

        return float(binomtest(first, first + second).pvalue)

    def resampled(self, rounds: int) -> Any:
        """The difference in stratified paired bootstrap samples: drawing pairs with replacement is a multinomial draw of the four outcomes."""
        if self.difference is None:
            return None
        import numpy as np

        generator = np.random.default_rng(zlib.crc32(self.dataset.encode()))
        drawn = np.zeros(rounds)
        for label in (self.normal, self.anomalous):
            images = max(1, sum(label) // self.seeds)
            counts = generator.multinomial(images, np.asarray(label) / sum(label), rounds)
            drawn += 50.0 * (counts[:, 2] - counts[:, 1]) / images
        return drawn

    def to_dict(self, rounds: int = ROUNDS) -> dict[str, Any]:
        """All figures by name."""
        return {
            "n": self.n,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "difference": self.difference,
            "difference_ci": interval(self.resampled(rounds)),
            "mcnemar_p": self.p_value,
        }


@dataclass(frozen=True)
class Comparison:
    """Two models by name, and their pairs on each dataset."""

    first: str
    second: str
    datasets: tuple[Pairs, ...]

    @classmethod
    def of(cls, predictions: Iterable[Prediction], first: str, second: str) -> Comparison:
        """The comparison on the images (and seeds) that both models answered; raises ReportError when there are none."""
        right: dict[str, dict[tuple[str, int, str], bool]] = {first: {}, second: {}}
        labels: dict[tuple[str, int, str], bool] = {}
        found = set()
        for prediction in predictions:
            found.add(prediction.model)
            if prediction.model in right:
                key = (prediction.dataset, prediction.seed, prediction.sample_id)
                right[prediction.model][key] = prediction.verdict.anomalous is prediction.anomalous
                labels[key] = prediction.anomalous
        shared = right[first].keys() & right[second].keys()
        if not shared:
            raise ReportError(f"{first} and {second} share no image; the predictions are of {', '.join(sorted(found)) or 'no model'}.")
        return cls(first, second, _pairs([(key, labels[key], right[first][key], right[second][key]) for key in shared]))

    @property
    def mean_difference(self) -> float | None:
        """Mean over datasets of the second model's balanced accuracy minus the first's."""
        known = [pairs.difference for pairs in self.datasets if pairs.difference is not None]
        return sum(known) / len(known) if known else None

    def to_dict(self, rounds: int = ROUNDS) -> dict[str, Any]:
        """All figures by name, p-values also corrected for the number of datasets (Holm)."""
        drawn = [sampled for pairs in self.datasets if (sampled := pairs.resampled(rounds)) is not None]
        corrected = holm([pairs.p_value for pairs in self.datasets])
        rows = {pairs.dataset: pairs.to_dict(rounds) | {"mcnemar_p_holm": p} for pairs, p in zip(self.datasets, corrected, strict=True)}
        mean_ci = interval(sum(drawn) / len(drawn)) if drawn else None
        return {
            "first": self.first,
            "second": self.second,
            "datasets": rows,
            "mean_difference": self.mean_difference,
            "mean_difference_ci": mean_ci,
        }


def holm(p_values: list[float]) -> list[float]:
    """Holm's correction: the chance of any false alarm among all tests stays at the level of one."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _pairs(rows: list[tuple[tuple[str, int, str], bool, bool, bool]]) -> tuple[Pairs, ...]:
    counts: dict[str, tuple[list[int], list[int]]] = {}
    seeds: dict[str, set[int]] = {}
    for (dataset, seed, _), anomalous, first, second in rows:
        label = counts.setdefault(dataset, ([0] * 4, [0] * 4))[anomalous]
        label[2 * (not first) + (not second)] += 1
        seeds.setdefault(dataset, set()).add(seed)
    return tuple(Pairs(name, _four(counts[name][0]), _four(counts[name][1]), len(seeds[name])) for name in sorted(counts))


def _four(counts: list[int]) -> tuple[int, int, int, int]:
    both, only_first, only_second, neither = counts
    return both, only_first, only_second, neither
