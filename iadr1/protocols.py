"""Protocols of an evaluation: what base and tuned models are asked, how they may answer, and how their answers are read. See docs/evaluation.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from iadr1 import prompts
from iadr1.samples import Sample

Reader = Literal["tags", "free"]

# All that a reader of each kind takes for whole.
PATTERNS: dict[Reader, str] = {
    "tags": r"<think>[^<]+</think>(<answer>No</answer>|<location>[^<]+</location><type>[^<]+</type><answer>Yes</answer>)",
    "free": r"(Yes|No)",
}


@dataclass(frozen=True, slots=True)
class Protocol:
    """`alike`: tuned models are asked and read as base models are. `constrained`: only tokens that keep to the form are allowed."""

    alike: bool = False
    constrained: bool = False

    def reader(self, *, base: bool) -> Reader:
        """How a model's answers are read."""
        return "free" if base or self.alike else "tags"

    def pattern(self, *, base: bool) -> str | None:
        """What a model's answers are held to, None for no constraint."""
        return PATTERNS[self.reader(base=base)] if self.constrained else None

    def chat(self, sample: Sample, *, shots: int, base: bool, form: bool = False) -> Sequence[dict[str, Any]]:
        """What a model is asked about a sample, with as many of `shots` references as there are; with `form`, for the answer's form in words."""
        known = min(shots, len(sample.references))
        return prompts.messages(sample, shots=known, base=base or self.alike, form=form and not self.alike)


PROTOCOLS = {
    "paper": Protocol(),
    "fair": Protocol(alike=True),
    "constrained": Protocol(constrained=True),
    "fair_constrained": Protocol(alike=True, constrained=True),
}


def shown_name(model: str, protocol: str) -> str:
    """A model's name in predictions and reports: its own under the paper's protocol, else with the protocol after it."""
    return model if protocol == "paper" else f"{model}-{protocol}"
