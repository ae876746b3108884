"""What a model must be to be promoted: each gate is a function here and a line of `params.yaml: register.gates`. docs/registry.md has the table.

Try `iadr1 gate --candidate data/predictions --live none`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from iadr1.comparison import Comparison
from iadr1.decision import NOT_APPLICABLE, PASSED, REFUSED, UNDECIDED, Decision, Finding, of_findings
from iadr1.report import ROUNDS, EvalReport, ModelReport, Prediction, interval
from iadr1.tallies import Tally

STAGING, PRODUCTION = "staging", "production"
TARGETS = (STAGING, PRODUCTION)
# What a registered version has to say about where it comes from.
LINEAGE = ("git_commit", "params_sha256", "dvc_lock_sha256", "release_run", "manifest_sha256")
SURE = 0.05  # of McNemar's test, corrected for the number of data sets
_CANDIDATE, _LIVE = "candidate", "live"


@dataclass(frozen=True)
class Evaluation:
    """What one model answered on which images, and what is known of its origin (None: nothing, as of a folder of predictions)."""

    name: str
    predictions: Sequence[Prediction]
    facts: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Case:
    """What is decided on: a candidate, the data sets that it has to answer, and the live model, None when nothing is live."""

    candidate: Evaluation
    datasets: Sequence[str]
    live: Evaluation | None = None
    grid: int = 3

    @cached_property
    def report(self) -> ModelReport:
        """The candidate's rates."""
        models = EvalReport.of(_renamed(self.candidate, _CANDIDATE), grid=self.grid).models
        return models.get(_CANDIDATE, ModelReport({}))

    @property
    def missing(self) -> list[str]:
        """The data sets that the candidate has not answered."""
        return [name for name in self.datasets if name not in self.report.datasets]

    @cached_property
    def shared(self) -> set[tuple[str, str]]:
        """Data set and id of the images that both models answered."""
        return _annotations(self.candidate).keys() & _annotations(self.live).keys() if self.live else set()

    @cached_property
    def other_images(self) -> int:
        """How many shared ids are of images that were annotated otherwise: not the same images."""
        ours, theirs = _annotations(self.candidate), _annotations(self.live) if self.live else {}
        return sum(ours[key] != theirs[key] for key in self.shared)

    @cached_property
    def compared(self) -> dict[str, Any]:
        """The candidate minus the live model, on the shared images."""
        assert self.live is not None
        return Comparison.of([*_renamed(self.live, _LIVE), *_renamed(self.candidate, _CANDIDATE)], _LIVE, _CANDIDATE).to_dict()


Gate = Callable[[Case, Any], Finding]


def decide(case: Case, limits: Mapping[str, Any], *, to: str) -> Decision:
    """Every gate of `limits` on a case, but those that only production asks where `to` is staging; a limit of None is not asked."""
    asked = [(name, limit) for name, limit in limits.items() if limit is not None and (to == PRODUCTION or name not in ONLY_PRODUCTION)]
    findings = [GATES[name](case, limit).named(name) for name, limit in asked]
    return of_findings(findings, to=to, candidate=_told(case.candidate), live=_told(case.live) if case.live else None)


def mean_floor(case: Case, limit: float) -> Finding:
    """The mean over data sets of balanced accuracy."""
    value, bounds = case.report.mean_balanced_accuracy, case.report.mean_ci()
    return _complete(case, _floor(limit, value, f"mean balanced accuracy of {len(case.report.datasets)} data sets", bounds))


def dataset_floor(case: Case, limit: float) -> Finding:
    """The balanced accuracy of the worst data set."""
    name, value, tally = _worst(case, lambda tally: tally.balanced_accuracy, min)
    return _complete(case, _floor(limit, value, f"balanced accuracy on {name}", _bounds(tally)))


def class_floor(case: Case, limit: Any) -> Finding:
    """The balanced accuracy of the worst class that has enough images of both labels."""
    tallies = {f"{data}/{name}": tally for data, report in case.report.datasets.items() for name, tally in report.classes.items()}
    judged = {name: tally for name, tally in tallies.items() if min(tally.normal, tally.anomalous) >= limit.images}
    if not judged:
        return Finding(limit.floor, verdict=UNDECIDED, reason=f"no class has {limit.images} normal and {limit.images} anomalous images")
    worst = min(judged, key=lambda name: judged[name].balanced_accuracy or 0.0)
    few = f" ({len(tallies) - len(judged)} classes have too few images to judge)" if len(judged) < len(tallies) else ""
    found = _floor(limit.floor, judged[worst].balanced_accuracy, f"balanced accuracy on {worst}", _bounds(judged[worst]))
    return _complete(case, found.saying(few))


def escape_ceiling(case: Case, limit: float) -> Finding:
    """The share of anomalous images that pass as good, on the worst data set; an answer that cannot be read lets one pass."""
    name, value, tally = _worst(case, lambda tally: tally.escape, max)
    bounds = _wilson(tally.anomalous - tally.true_anomalous, tally.anomalous)
    return _complete(case, _ceiling(limit, value, f"missed defects on {name}", bounds))


def unreadable_ceiling(case: Case, limit: float) -> Finding:
    """The share of answers that are neither yes nor no, on the worst data set."""
    name, value, tally = _worst(case, lambda tally: tally.unreadable, max)
    bounds = _wilson(tally.unreadable_normal + tally.unreadable_anomalous, tally.n)
    return _complete(case, _ceiling(limit, value, f"unreadable answers on {name}", bounds))


def same_answer_ceiling(case: Case, limit: float) -> Finding:
    """The share of the more frequent answer on the data set where it is largest, normal and anomalous images weighing alike.

    Half is what a perfect model says; a model that always says yes reaches 100 on any mixture of images.
    """
    name, value, _ = _worst(case, _same_answer, max)
    return _complete(case, _ceiling(limit, value, f"one and the same answer on {name}"))


def location_floor(case: Case, limit: float) -> Finding:
    """The share of right places among the defects found, on all images that have one annotated."""
    return _evidence(case, limit, "location", lambda tally: (tally.location_right, tally.location_scored))


def type_floor(case: Case, limit: float) -> Finding:
    """The share of right defect types among the defects found, on all images that have one annotated."""
    return _evidence(case, limit, "type", lambda tally: (tally.type_right, tally.type_scored))


def latency_ceiling(case: Case, limit: float) -> Finding:
    """The seconds within which 95 of 100 answers came."""
    seconds = sorted(one.seconds for one in case.candidate.predictions if one.seconds is not None)
    if not seconds or len(seconds) < len(case.candidate.predictions):
        missing = len(case.candidate.predictions) - len(seconds)
        return Finding(limit, verdict=UNDECIDED, reason=f"{missing} answers do not tell their seconds; set evaluate.latency: true")
    return _ceiling(limit, seconds[math.ceil(0.95 * len(seconds)) - 1], "seconds for 95 of 100 answers", unit="s")


def data_validated(case: Case, limit: bool) -> Finding:
    """Whether the stage `validate` found the training data fit."""
    return _fact(case, limit, "validation", lambda text: text.startswith("passed"), "validation of the data")


def lineage_complete(case: Case, limit: bool) -> Finding:
    """Whether commit, parameters, data and run are known, so that the model could be made again."""
    facts = case.candidate.facts
    missing = [name for name in LINEAGE if facts is not None and facts.get(name, "none") == "none"]
    if facts is not None and missing:
        return Finding(limit, value="incomplete", verdict=REFUSED, reason=f"unknown: {', '.join(missing)}")
    return _fact(case, limit, "git_commit", bool, "commit")


def no_regression(case: Case, limit: Any) -> Finding:
    """On the same images the candidate is worse by no more than the points: in the mean for certain, on no data set provably."""
    unfit = _incomparable(case, limit.images, -limit.points)
    if unfit:
        return unfit
    told, bounds = case.compared, case.compared["mean_difference_ci"]
    worse = [
        f"{name} ({row['difference']:+.1f}, {_chance(row['mcnemar_p_holm'])})"
        for name, row in told["datasets"].items()
        if row["difference"] is not None and row["difference"] < -limit.points and row["mcnemar_p_holm"] < SURE
    ]
    passed = bounds[0] >= -limit.points and not worse
    reason = f"{_difference(case)}; down to {-limit.points:g} is tolerated" + (f"; provably worse: {', '.join(worse)}" if worse else "")
    return Finding(-limit.points, told["mean_difference"], bounds, PASSED if passed else REFUSED, reason)


def better_than_live(case: Case, limit: Any) -> Finding:
    """On the same images the candidate is better by more than the points, for certain: a tie is none."""
    unfit = _incomparable(case, limit.images, limit.points)
    if unfit:
        return unfit
    told, bounds = case.compared, case.compared["mean_difference_ci"]
    passed = bounds[0] > limit.points
    reason = f"{_difference(case)}; {'certainly' if passed else 'not certainly'} more than {limit.points:g} points better"
    return Finding(limit.points, told["mean_difference"], bounds, PASSED if passed else REFUSED, reason)


GATES: dict[str, Gate] = {
    "data_validated": data_validated,
    "lineage_complete": lineage_complete,
    "mean_balanced_accuracy": mean_floor,
    "dataset_balanced_accuracy": dataset_floor,
    "class_balanced_accuracy": class_floor,
    "missed_defects": escape_ceiling,
    "unreadable_answers": unreadable_ceiling,
    "same_answer": same_answer_ceiling,
    "location_accuracy": location_floor,
    "type_accuracy": type_floor,
    "seconds": latency_ceiling,
    "no_regression": no_regression,
    "better_than_live": better_than_live,
}
ONLY_PRODUCTION = {"better_than_live"}


def _floor(limit: float, value: float | None, what: str, bounds: Sequence[float] | None = None) -> Finding:
    return _bounded(limit, value, what, bounds, is_floor=True)


def _ceiling(limit: float, value: float | None, what: str, bounds: Sequence[float] | None = None, unit: str = "%") -> Finding:
    return _bounded(limit, value, what, bounds, is_floor=False, unit=unit)


def _bounded(limit: float, value: float | None, what: str, bounds: Sequence[float] | None, *, is_floor: bool, unit: str = "%") -> Finding:
    if value is None or math.isnan(value):
        return Finding(limit, verdict=UNDECIDED, reason=f"{what}: the report does not hold it")
    passed = value >= limit if is_floor else value <= limit
    bound = f"{'' if passed else 'not '}at {'least' if is_floor else 'most'} {limit:g}"
    return Finding(limit, value, bounds, PASSED if passed else REFUSED, f"{what} is {value:.1f} {unit}, {bound}")


def _complete(case: Case, found: Finding) -> Finding:
    """A pass holds only where every data set was answered."""
    if found.verdict == PASSED and case.missing:
        return Finding(
            found.limit, found.value, found.interval, UNDECIDED, f"{found.reason}, but nothing is known of {', '.join(case.missing)}"
        )
    return found


def _worst(case: Case, rate: Callable[[Tally], float | None], worst: Callable[..., str]) -> tuple[str, float | None, Tally]:
    """The data set with the worst rate, that rate, and its counts; a data set without the rate is the worst."""
    tallies = {name: report.tally for name, report in case.report.datasets.items()}
    rates = {name: rate(tally) for name, tally in tallies.items()}
    if None in rates.values() or not rates:
        return next((name for name, value in rates.items() if value is None), "any data set"), None, Tally()
    name = worst(rates, key=lambda name: rates[name])
    return name, rates[name], tallies[name]


def _evidence(case: Case, limit: float, what: str, counted: Callable[[Tally], tuple[int, int]]) -> Finding:
    if not any(getattr(one, what) for one in case.candidate.predictions if one.anomalous):
        return Finding(limit, verdict=NOT_APPLICABLE, reason=f"no image has a {what} annotated")
    right, scored = counted(sum((report.tally for report in case.report.datasets.values()), Tally()))
    if not scored:
        return Finding(limit, verdict=UNDECIDED, reason=f"no defect with a {what} annotated was found")
    return _complete(case, _floor(limit, 100.0 * right / scored, f"right {what}s of {scored} defects found", _wilson(right, scored)))


def _fact(case: Case, limit: bool, key: str, good: Callable[[str], bool], what: str) -> Finding:
    facts = case.candidate.facts
    if not limit or facts is None:
        why = "not asked" if not limit else "predictions alone do not tell; asked when a registered version is promoted"
        return Finding(limit, verdict=NOT_APPLICABLE, reason=why)
    if key not in facts:
        return Finding(limit, verdict=UNDECIDED, reason=f"{what}: the version does not tell it (no tag {key})")
    return Finding(limit, facts[key], None, PASSED if good(facts[key]) else REFUSED, f"{what}: {facts[key]}")


def _incomparable(case: Case, images: int, limit: float) -> Finding | None:
    """Why the candidate cannot be compared with the live model on the same images, if it cannot."""
    if case.live is None:
        return Finding(limit, verdict=NOT_APPLICABLE, reason="nothing is live yet; the floors decide")
    if case.other_images:
        reason = f"{case.other_images} of {len(case.shared)} samples are other images under the same id as {case.live.name}'s"
    elif len(case.shared) < images:
        reason = f"{len(case.shared)} images were answered by both; at least {images} are wanted"
    elif case.compared["mean_difference_ci"] is None:
        reason = "no data set has normal and anomalous images that both answered"
    else:
        return None
    return Finding(limit, verdict=UNDECIDED, reason=f"{reason}. Evaluate {case.live.name} on the candidate's images")


def _difference(case: Case) -> str:
    assert case.live is not None
    told = case.compared
    low, high = told["mean_difference_ci"]
    images = sum(row["n"] for row in told["datasets"].values())
    return f"{told['mean_difference']:+.1f} points [{low:+.1f}, {high:+.1f}] against {case.live.name} on {images} same images"


def _chance(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def _same_answer(tally: Tally) -> float | None:
    if tally.tpr is None or tally.tnr is None:
        return None
    normal = 100.0 * tally.alarms / tally.normal
    yes = (tally.tpr + normal) / 2
    unread = 50.0 * (tally.unreadable_normal / tally.normal + tally.unreadable_anomalous / tally.anomalous)
    return max(yes, 100.0 - yes - unread)


def _bounds(tally: Tally) -> list[float] | None:
    import numpy as np

    return interval(tally.resampled(np.random.default_rng(0), ROUNDS))


def _wilson(part: int, whole: int) -> list[float] | None:
    """The 95 % interval of a share, in percent (Wilson's score)."""
    if not whole:
        return None
    z, share = 1.959964, part / whole
    middle = (share + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole)) / (1 + z * z / whole)
    return [100.0 * max(0.0, middle - half), 100.0 * min(1.0, middle + half)]


def _annotations(evaluation: Evaluation | None) -> dict[tuple[str, str], tuple[Any, ...]]:
    """What identifies each image: a made benchmark gives the same ids to other images when its seed changes."""
    found = evaluation.predictions if evaluation else ()
    return {(one.dataset, one.sample_id): (one.category, one.anomalous, one.visibility) for one in found}


def _renamed(evaluation: Evaluation, name: str) -> Iterable[Prediction]:
    # The seed of a training is no seed of an image: both models saw the same images.
    return (replace(one, model=name, seed=0) for one in evaluation.predictions)


def _told(evaluation: Evaluation) -> dict[str, Any]:
    return {"name": evaluation.name, "images": len(evaluation.predictions)}
