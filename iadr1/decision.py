"""The decision about a model as a record: every gate with its limit, value, interval, verdict and reason, as JSON and as Markdown."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from iadr1.errors import ReportError
from iadr1.report_tables import table

SCHEMA = 1
PASSED, REFUSED, UNDECIDED, NOT_APPLICABLE = "passed", "refused", "undecided", "not applicable"
# What a command ends with: a decision that could not be made is an error, never a pass.
EXIT_CODES = {PASSED: 0, REFUSED: 3, UNDECIDED: 1}
_MARKS = {PASSED: "passed", REFUSED: "**refused**", UNDECIDED: "**undecided**", NOT_APPLICABLE: "–"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One gate: what was wanted, what was found, with its 95 % interval where it is an estimate, and what follows."""

    limit: float | bool
    value: float | str | None = None
    interval: Sequence[float] | None = None
    verdict: str = UNDECIDED
    reason: str = ""
    name: str = ""

    def named(self, name: str) -> "Finding":
        """The finding of the gate `name`."""
        return replace(self, name=name)

    def saying(self, more: str) -> "Finding":
        """The finding with more in its reason."""
        return replace(self, reason=self.reason + more)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a candidate may become staging or production beside what is live: refused by any gate, else undecided by any, else passed."""

    to: str
    candidate: Mapping[str, Any]
    live: Mapping[str, Any] | None
    gates: tuple[Finding, ...]
    verdict: str

    @property
    def exit_code(self) -> int:
        """0 passed, 3 refused, 1 could not decide."""
        return EXIT_CODES[self.verdict]

    @property
    def summary(self) -> str:
        """Why not, or that everything passed, in one line."""
        if self.verdict == PASSED:
            asked = [gate for gate in self.gates if gate.verdict == PASSED]
            return f"all {len(asked)} gates passed"
        reasons = [f"{gate.name}: {gate.reason}" for gate in self.gates if gate.verdict == self.verdict]
        return "; ".join(reasons) or "no gate applies; set one in params.yaml: register.gates"

    def to_json(self) -> str:
        """The record; the same case gives the same text."""
        gates = [{"name": gate.name, **{key: value for key, value in asdict(gate).items() if key != "name"}} for gate in self.gates]
        told = {"candidate": self.candidate, "live": self.live, "to": self.to, "verdict": self.verdict, "gates": gates}
        return json.dumps({"schema": SCHEMA, **told}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Decision":
        """The decision of its JSON; raises ReportError when it is another form."""
        try:
            raw = json.loads(text)
            gates = tuple(Finding(**gate) for gate in raw["gates"])
            return cls(raw["to"], raw["candidate"], raw["live"], gates, raw["verdict"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ReportError(f"not a decision ({type(error).__name__}: {error}). Make one with `iadr1 gate`.") from error

    def markdown(self) -> str:
        """The document that a person reads."""
        rows = [
            [gate.name, _figure(gate.limit), _figure(gate.value), _between(gate), _MARKS[gate.verdict], gate.reason] for gate in self.gates
        ]
        live = f"{self.live['name']} ({self.live['images']} images)" if self.live else "nothing"
        head = [
            f"# {self.candidate['name']} to {self.to}: {self.verdict}",
            f"Candidate: {self.candidate['name']} ({self.candidate['images']} images). Live: {live}.",
            f"{self.verdict.capitalize()}: {self.summary}.",
        ]
        return "\n\n".join([*head, table(["gate", "limit", "value", "95 % interval", "verdict", "reason"], rows)])


def of_findings(findings: Sequence[Finding], *, to: str, candidate: Mapping[str, Any], live: Mapping[str, Any] | None) -> Decision:
    """The decision that follows from every gate's finding; without any that passed it is undecided."""
    verdicts = {finding.verdict for finding in findings}
    verdict = next((verdict for verdict in (REFUSED, UNDECIDED) if verdict in verdicts), PASSED if PASSED in verdicts else UNDECIDED)
    return Decision(to, candidate, live, tuple(findings), verdict)


def _figure(value: float | bool | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value[:12] if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def _between(gate: Finding) -> str:
    return "" if gate.interval is None else f"{gate.interval[0]:.1f} to {gate.interval[1]:.1f}"
