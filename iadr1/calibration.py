"""What P(yes) is worth: how well it orders images, how true it is as a probability, and where to cut it. Formulas: docs/evaluation.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

BINS = 10


@dataclass(frozen=True)
class Bin:
    """One bar of the reliability plot: the images whose P(yes) is in it, their mean P(yes) and the share of anomalous ones."""

    n: int
    p_yes: float
    anomalous: float


@dataclass(frozen=True)
class AtThreshold:
    """Rates in percent when P(yes) of at least `threshold` means a defect; an image without P(yes) counts as wrong."""

    threshold: float
    balanced_accuracy: float | None
    tpr: float | None
    tnr: float | None


@dataclass(frozen=True)
class Calibration:
    """P(yes) on one dataset: AUROC, average precision and expected calibration error in percent, of the `n` images that have one; `missing` have none."""

    n: int
    missing: int
    auroc: float | None
    average_precision: float | None
    ece: float
    bins: tuple[Bin | None, ...]
    at_threshold: AtThreshold | None = None

    @classmethod
    def of(
        cls, chances: Sequence[float], labels: Sequence[int], missing: tuple[int, int] = (0, 0), threshold: float | None = None
    ) -> Calibration:
        """The calibration of P(yes) against labels (1: anomalous); `missing` counts normal and anomalous images without P(yes)."""
        import numpy as np
        from sklearn.metrics import average_precision_score, roc_auc_score

        chance, label = np.asarray(chances, dtype=float), np.asarray(labels, dtype=int)
        both = 0 < label.sum() < len(label)
        bins = _bins(chance, label)
        return cls(
            len(chance), sum(missing),
            100 * float(roc_auc_score(label, chance)) if both else None,
            100 * float(average_precision_score(label, chance)) if both else None,
            100 * sum(bar.n * abs(bar.anomalous - bar.p_yes) for bar in bins if bar) / len(chance),
            bins,
            None if threshold is None else _at(threshold, chance, label, missing),
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The calibration as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Calibration:
        """The calibration of its plain values."""
        bins = tuple(None if bar is None else Bin(**bar) for bar in row["bins"])
        return cls(**{**row, "bins": bins, "at_threshold": row["at_threshold"] and AtThreshold(**row["at_threshold"])})


def best_threshold(chances: Sequence[float], labels: Sequence[int]) -> float | None:
    """The cut with the highest balanced accuracy, halfway between the two values of P(yes) that it parts; of equals the one nearest to a half.

    None where there are not both normal and anomalous images. To be chosen on images of validation, never on those of test.
    """
    import numpy as np
    from sklearn.metrics import roc_curve

    chance, label = np.asarray(chances, dtype=float), np.asarray(labels, dtype=int)
    if not 0 < label.sum() < len(label):
        return None
    # Without the first point: that calls nothing, and the last, which calls everything, is as good.
    false_alarms, detected, cuts = (points[1:] for points in roc_curve(label, chance, drop_intermediate=False))
    halfway = (cuts + np.append(cuts[1:], 0.0)) / 2
    gains = detected - false_alarms
    best = np.flatnonzero(gains >= gains.max() - 1e-12)
    return float(halfway[min(best, key=lambda at: abs(halfway[at] - 0.5))])


def _bins(chance: Any, label: Any) -> tuple[Bin | None, ...]:
    """BINS equal parts of 0 to 1; None for one without images."""
    import numpy as np

    places = np.minimum((chance * BINS).astype(int), BINS - 1)
    members = [places == place for place in range(BINS)]
    return tuple(
        Bin(int(inside.sum()), float(chance[inside].mean()), float(label[inside].mean())) if inside.any() else None for inside in members
    )


def _at(threshold: float, chance: Any, label: Any, missing: tuple[int, int]) -> AtThreshold:
    called = chance >= threshold
    counts = [(int((label == side).sum()) + missing[side], int((called[label == side] == side).sum())) for side in (0, 1)]
    tnr, tpr = (100 * right / total if total else None for total, right in counts)
    return AtThreshold(threshold, None if tnr is None or tpr is None else (tnr + tpr) / 2, tpr, tnr)
