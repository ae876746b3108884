"""Whether a model may be promoted: its report's summary against the floors of params.yaml."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class GateResult:
    """One floor and what was found; `value` is None when the summary does not hold it."""

    name: str
    limit: float
    value: float | None
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """All gates; a model passes when each one does."""

    passed: bool
    gates: tuple[GateResult, ...]

    @property
    def reason(self) -> str:
        """Why not, or that everything passed."""
        failed = [gate.reason for gate in self.gates if not gate.passed]
        return "; ".join(failed) if failed else f"all {len(self.gates)} gates passed"


def decide(report_summary: Mapping[str, Any], floors: Mapping[str, float]) -> Decision:
    """Each floor against one model's summary.

    A floor is named like the value: "mean_balanced_accuracy", "mvtec.tpr" for one dataset, "min.tpr" for the worst of all; "max.unreadable" is a ceiling.
    """
    gates = tuple(_gate(report_summary, name, float(limit)) for name, limit in floors.items())
    return Decision(all(gate.passed for gate in gates), gates)


def _gate(summary: Mapping[str, Any], name: str, limit: float) -> GateResult:
    value = _value(summary, name)
    if value is None:
        return GateResult(name, limit, None, False, f"{name}: not in the report, so it cannot be at least {limit:g}")
    ceiling = name.startswith("max.")
    passed = value <= limit if ceiling else value >= limit
    bound = "at most" if ceiling else "at least"
    return GateResult(name, limit, value, passed, f"{name} is {value:.2f}, {'' if passed else 'not '}{bound} {limit:g}")


def _value(summary: Mapping[str, Any], name: str) -> float | None:
    """A value by name; NaN counts as missing."""
    scope, _, metric = name.rpartition(".")
    datasets = summary.get("datasets", {})
    if not scope:
        found = summary.get(metric)
    elif scope in ("min", "max"):
        values = [dataset.get(metric) for dataset in datasets.values()]
        found = None if not values or None in values else (min if scope == "min" else max)(values)
    else:
        found = datasets.get(scope, {}).get(metric)
    return None if found is None or math.isnan(found) else float(found)
