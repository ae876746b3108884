"""Charts as figures and places in drawing units, for `charts.html` to draw as SVG: no colour, font or markup is decided here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from iadr1.calibration import Calibration

WIDTH, HEIGHT = 440.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 16.0, 40.0
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
BINS = 24
FLAT = 1e-9  # a smaller share of a value is rounding
MOST_POINTS = 400  # of one line: more than there are pixels

Log = Sequence[Mapping[str, float]]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """A named range of values, laid from one drawing unit to another."""

    name: str
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value lies."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and texts of three to seven round values."""
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        values = [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [(self.at(value), f"{round(value, 9) + 0.0:,.7g}") for value in values]


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of a chart: a line through places, bars (x, y, width, height), or marks with what each is of."""

    name: str
    slot: int
    line: str = ""
    bars: Sequence[tuple[float, float, float, float]] = ()
    marks: Sequence[tuple[float, float, str]] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with two axes; `guides` are thin lines (x1, y1, x2, y2, text) behind everything, `said` is the chart in words."""

    id: str
    title: str
    said: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    guides: Sequence[tuple[float, float, float, float, str]] = ()
    width: float = WIDTH
    height: float = HEIGHT


@dataclass(frozen=True, slots=True)
class Forest:
    """Intervals below one another: groups of rows (y, slot, name, low, value, high, text), with published targets as (y, x, text)."""

    x: Axis
    said: str
    groups: Sequence[tuple[float, str]]
    rows: Sequence[tuple[float, int, float, float, float, str]]
    targets: Sequence[tuple[float, float, str]]
    height: float
    width: float = WIDTH
    id: str = "intervals"
    title: str = "Balanced accuracy with 95 % intervals"


def rates_chart(points: Sequence[tuple[str, int, str, float, float, bool]]) -> Chart:
    """Detection rate against acceptance rate: (model, slot, data set, TNR, TPR, whether it is the mean)."""
    x, y = _axes("TNR: normal images accepted, %", (0.0, 100.0), "TPR: defects detected, %", (0.0, 100.0))
    guides = [
        (x.at(max(0, 2 * level - 100)), y.at(min(100, 2 * level)), x.at(min(100, 2 * level)), y.at(max(0, 2 * level - 100)), f"{level}")
        for level in (50, 60, 70, 80, 90)
    ]
    names = list(dict.fromkeys((model, slot) for model, slot, *_ in points))
    series = [
        Series(
            name, slot,
            marks=[(x.at(tnr), y.at(tpr), f"{name}, {where}: TPR {tpr:.1f}, TNR {tnr:.1f}{'*' if mean else ''}")
                   for model, _, where, tnr, tpr, mean in points if model == name],
        )
        for name, slot in names
    ]  # fmt: skip
    means = "; ".join(f"{model}: TPR {tpr:.1f}, TNR {tnr:.1f}" for model, _, _, tnr, tpr, mean in points if mean)
    return Chart("rates", "Defects detected against normal images accepted", f"Means over data sets: {means}.", x, y, series, guides)


def forest(
    datasets: Sequence[str],
    rows: Sequence[tuple[str, str, int, float, Sequence[float]]],
    targets: Sequence[tuple[str, str, float]] = (),
) -> Forest:
    """Rows of (data set, model, slot, value, interval) grouped by data set; targets of (data set, model, value) go with their row."""
    values = [bound for *_, bounds in rows for bound in bounds] + [value for *_, value in targets]
    low = max(0.0, 10 * math.floor(min(values, default=0.0) / 10))
    axis = Axis("balanced accuracy, %", low, 100.0, 96.0, WIDTH - RIGHT)
    groups: list[tuple[float, str]] = []
    places: dict[tuple[str, str], float] = {}
    y = TOP
    for dataset in datasets:
        own = [row for row in rows if row[0] == dataset]
        groups.append((y + 7.0 * len(own), dataset))
        places |= {(dataset, row[1]): y + 7 + 14 * number for number, row in enumerate(own)}
        y += 14 * len(own) + 10
    drawn = [
        (places[dataset, model], slot, axis.at(bounds[0]), axis.at(value), axis.at(bounds[1]),
         f"{model}, {dataset}: {value:.1f} ({bounds[0]:.1f} to {bounds[1]:.1f})")
        for dataset, model, slot, value, bounds in rows
    ]  # fmt: skip
    aims = [
        (places[dataset, model], axis.at(value), f"{model}, {dataset}: published {value:.1f}")
        for dataset, model, value in targets
        if (dataset, model) in places
    ]
    said = "; ".join(text for *_, text in drawn)
    return Forest(axis, said, groups, drawn, aims, y + BOTTOM - 6)


def histogram(lengths: Mapping[str, Sequence[int]], unit: str) -> Chart:
    """How long the answers of each model are, as shares of its answers."""
    everything = np.concatenate([np.asarray(values) for values in lengths.values()])
    # The longest in a hundred would press the others together: they stand in the last bin.
    top = max(1.0, float(np.percentile(everything, 99.5)))
    width = max(1, math.ceil((top + 1) / BINS))
    edges = np.arange(0, width * (math.ceil((top + 1) / width) + 1), width)
    shares = {
        name: 100 * np.histogram(np.clip(values, 0, edges[-1] - 1), edges)[0] / max(1, len(values)) for name, values in lengths.items()
    }
    x, y = _axes(f"length of an answer, {unit}", (0.0, float(edges[-1])), "answers, %", (0.0, _ceiling(max(map(max, shares.values())))))
    series = [Series(name, slot, line=_steps(x, y, edges, share)) for slot, (name, share) in enumerate(shares.items())]
    said = "; ".join(f"{name}: median {np.median(values):.0f}, longest {max(values)}" for name, values in lengths.items())
    return Chart("lengths", "Length of the answers", f"In {unit}. {said}.", x, y, series)


def curve(id: str, title: str, log: Log, columns: Mapping[str, str], unit: str) -> Chart | None:
    """Columns of a training's log over its steps, by the name that each is shown with; None when the log has none of them."""
    found = {
        shown: [(row["step"], row[column]) for row in log if column in row and math.isfinite(row[column])]
        for column, shown in columns.items()
    }
    found = {shown: points for shown, points in found.items() if len(points) > 1}
    if not found:
        return None
    values = [value for points in found.values() for _, value in points]
    steps = [step for points in found.values() for step, _ in points]
    span = max(values) - min(values)
    span = span if span > FLAT * max(1.0, *map(abs, values)) else 1.0
    low = 0.0 if 0 <= min(values) < span else _round_step(span / 5) * math.floor(min(values) / _round_step(span / 5))
    x, y = _axes(
        "step", (min(steps), max(steps) if max(steps) > min(steps) else min(steps) + 1), unit, (low, low + _ceiling(max(values) - low))
    )
    series = [Series(shown, slot, line=_line(x, y, _thinned(points))) for slot, (shown, points) in enumerate(found.items())]
    said = "; ".join(f"{shown}: {points[0][1]:.3g} at first, {points[-1][1]:.3g} at last" for shown, points in found.items())
    return Chart(id, title, f"{said}.", x, y, series)


def reliability(found: Sequence[tuple[str, int, Calibration]]) -> Chart:
    """Share of defects among answers by the probability that they state, beside the diagonal of a calibrated model: (model, slot, calibration)."""
    x, y = _axes("P(yes), %", (0.0, 100.0), "defects among them, %", (0.0, 100.0))
    series = [
        _stated(name, slot, [(100 * bar.p_yes, 100 * bar.anomalous, bar.n) for bar in one.bins if bar], x, y) for name, slot, one in found
    ]
    said = "; ".join(f"{name}: expected calibration error {one.ece:.1f} %" for name, _, one in found)
    return Chart("reliability", "Calibration", f"{said}.", x, y, series, [(x.at(0), y.at(0), x.at(100), y.at(100), "")])


def _stated(name: str, slot: int, bars: Sequence[tuple[float, float, int]], x: Axis, y: Axis) -> Series:
    marks = [
        (x.at(stated), y.at(true), f"{name}: {count} answers of {stated:.0f} %, {true:.0f} % defective") for stated, true, count in bars
    ]
    return Series(name, slot, line=_line(x, y, [(stated, true) for stated, true, _ in bars]), marks=marks)


def _axes(x: str, across: tuple[float, float], y: str, up: tuple[float, float]) -> tuple[Axis, Axis]:
    return Axis(x, *across, LEFT, WIDTH - RIGHT), Axis(y, *up, HEIGHT - BOTTOM, TOP)


def _line(x: Axis, y: Axis, points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x.at(a)} {y.at(b)}" for a, b in points)


def _steps(x: Axis, y: Axis, edges: Any, shares: Any) -> str:
    tops = "".join(f"V{y.at(share)}H{x.at(edge)}" for share, edge in zip(shares, edges[1:], strict=True))
    return f"M{x.at(edges[0])} {y.at(0)}{tops}V{y.at(0)}"


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Means of neighbours, where there are more points than can be seen."""
    size = math.ceil(len(points) / MOST_POINTS)
    return points if size == 1 else [tuple(np.mean(points[at : at + size], axis=0)) for at in range(0, len(points), size)]


def _round_step(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return power * next(step for step in STEPS if step * power >= value * (1 - 1e-9))


def _ceiling(value: float) -> float:
    """A round value that is not below."""
    if value <= FLAT:
        return 1.0
    step = _round_step(value / 5)
    return step * math.ceil(value / step - FLAT)
