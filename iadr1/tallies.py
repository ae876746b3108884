"""Counts of right and wrong verdicts, and every rate that follows from them, in percent."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

STATUSES = ("ok", "malformed", "ambiguous", "truncated", "unreadable")


@dataclass(frozen=True)
class Tally:
    """What happened on some images; an answer that cannot be read counts as wrong."""

    normal: int = 0
    anomalous: int = 0
    true_normal: int = 0
    true_anomalous: int = 0
    unreadable_normal: int = 0
    unreadable_anomalous: int = 0
    location_scored: int = 0
    location_right: int = 0
    type_scored: int = 0
    type_right: int = 0
    type_points: float = 0.0
    agreement_scored: int = 0
    agreement_right: int = 0
    tokens: int = 0
    statuses: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: Tally) -> Tally:
        sums = {item.name: getattr(self, item.name) + getattr(other, item.name) for item in fields(self) if item.name != "statuses"}
        statuses = {status: self.statuses.get(status, 0) + other.statuses.get(status, 0) for status in STATUSES}
        return Tally(**sums, statuses={status: count for status, count in statuses.items() if count})

    @property
    def n(self) -> int:
        """The number of images."""
        return self.normal + self.anomalous

    @property
    def tpr(self) -> float | None:
        """Detection rate on anomalous images."""
        return percent(self.true_anomalous, self.anomalous)

    @property
    def tnr(self) -> float | None:
        """Acceptance rate on normal images."""
        return percent(self.true_normal, self.normal)

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of the rates on anomalous and on normal images; None without one of the two."""
        return None if self.tpr is None or self.tnr is None else (self.tpr + self.tnr) / 2

    @property
    def overkill(self) -> float | None:
        """Share of normal images that were not accepted."""
        return None if self.tnr is None else 100.0 - self.tnr

    @property
    def escape(self) -> float | None:
        """Share of anomalous images that were not detected."""
        return None if self.tpr is None else 100.0 - self.tpr

    @property
    def alarms(self) -> int:
        """Normal images that were called anomalous."""
        return self.normal - self.true_normal - self.unreadable_normal

    @property
    def precision(self) -> float | None:
        """Share of true ones among the images called anomalous."""
        return percent(self.true_anomalous, self.true_anomalous + self.alarms)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and detection rate, anomalous being the positive class."""
        return percent(2 * self.true_anomalous, self.true_anomalous + self.alarms + self.anomalous)

    @property
    def mcc(self) -> float | None:
        """Matthews correlation of label and being called anomalous, -100 to 100; an unreadable answer is the wrong one."""
        true_positive, true_negative = self.true_anomalous, self.true_normal
        false_negative, false_positive = self.anomalous - true_positive, self.normal - true_negative
        called, passed = true_positive + false_positive, true_negative + false_negative
        scale = math.sqrt(float(called) * passed * self.anomalous * self.normal)
        return 100.0 * (true_positive * true_negative - false_positive * false_negative) / scale if scale else None

    @property
    def unreadable(self) -> float | None:
        """Share of answers that are neither yes nor no."""
        return percent(self.unreadable_normal + self.unreadable_anomalous, self.n)

    def rates(self) -> dict[str, Any]:
        """All rates by name; None where nothing was there to rate."""
        return {
            "n": self.n,
            "normal": self.normal,
            "anomalous": self.anomalous,
            "balanced_accuracy": self.balanced_accuracy,
            "tpr": self.tpr,
            "tnr": self.tnr,
            "overkill": self.overkill,
            "escape": self.escape,
            "precision": self.precision,
            "f1": self.f1,
            "mcc": self.mcc,
            "unreadable": self.unreadable,
            "statuses": {status: percent(self.statuses.get(status, 0), self.n) for status in STATUSES},
            "location_accuracy": percent(self.location_right, self.location_scored),
            "type_accuracy": percent(self.type_right, self.type_scored),
            "type_score": percent(self.type_points, self.type_scored),
            "agreement": percent(self.agreement_right, self.agreement_scored),
            # No answer is empty of tokens: none at all were not counted.
            "tokens": self.tokens / self.n if self.tokens else None,
        }

    def to_dict(self) -> dict[str, Any]:
        """The counts alone."""
        return asdict(self)

    def resampled(self, generator: np.random.Generator, rounds: int, seeds: int = 1) -> np.ndarray | None:
        """Balanced accuracy in `rounds` stratified bootstrap samples: drawing images with replacement is a binomial draw of right ones.

        Runs with other seeds see the same images: they sharpen the rate, but not what a new set of images would give.
        """
        if not self.normal or not self.anomalous:
            return None
        positives, negatives = max(1, self.anomalous // seeds), max(1, self.normal // seeds)
        positive = generator.binomial(positives, self.true_anomalous / self.anomalous, rounds) / positives
        negative = generator.binomial(negatives, self.true_normal / self.normal, rounds) / negatives
        return 50.0 * (positive + negative)


def percent(part: float, whole: float) -> float | None:
    """Part of a whole in percent, or None of nothing."""
    return 100.0 * part / whole if whole else None
