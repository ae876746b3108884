"""The published figures of IAD-R1, what was found inconsistent in them, and a report of ours beside them. Try `iadr1 parity REPORT.json`."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from iadr1.errors import ReportError

STAGES = ("base", "pa_sft", "sc_grpo")
# How the folders and hub ids of the published backbones begin.
CHECKPOINTS = {
    "llava-onevision-qwen2-0.5b-si": "LLaVA-OneVision-SI-0.5B", "llava-onevision-qwen2-7b-si": "LLaVA-OneVision-SI-7B",
    "qwen2-vl-2b": "Qwen2-VL-2B", "qwen2.5-vl-3b": "Qwen2.5-VL-3B", "qwen2.5-vl-7b": "Qwen2.5-VL-7B", "llava-1.5-7b": "LLaVA-1.5-7B",
    "llava-v1.6-mistral": "LLaVA-1.6-8B",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """One published balanced accuracy; `flags` say what is wrong with it."""

    source: str
    backbone: str
    stage: str
    shots: int
    dataset: str
    value: float
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ParityRow:
    """One figure of ours beside the paper's and the supplementary one."""

    model: str
    dataset: str
    ours: float
    paper: float | None
    supplementary: float | None
    flags: tuple[str, ...]
    interval: tuple[float, float] | None = None

    def standing(self, target: float | None) -> str:
        """Whether our interval lies above or below a published figure, or holds it; empty without one of the two."""
        if self.interval is None or target is None:
            return ""
        low, high = self.interval
        return "above" if low > target else "below" if high < target else "within"

    @property
    def paper_delta(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.paper is None else self.ours - self.paper

    @property
    def supplementary_delta(self) -> float | None:
        """Ours minus the supplementary result."""
        return None if self.supplementary is None else self.ours - self.supplementary


@cache
def targets() -> tuple[Target, ...]:
    """Every published figure, one for each dataset and one for their mean."""
    raw = json.loads(files("iadr1").joinpath("published.json").read_text(encoding="utf-8"))
    return tuple(target for row in raw["rows"] for target in _targets(row, raw["flags"]))


def backbones() -> list[str]:
    """The backbones with a base, PA-SFT and SC-GRPO figure."""
    return sorted({target.backbone for target in targets() if target.stage == "pa_sft"})


def published_name(folder: str) -> str | None:
    """The published backbone that a folder or hub id names, None when it names none."""
    last = folder.rstrip("/").rpartition("/")[2].lower()
    return next((name for start, name in CHECKPOINTS.items() if last.startswith(start)), None)


def parity(report: Mapping[str, Any], *, backbone: str, shots: int = 0) -> list[ParityRow]:
    """Each dataset of a report (as plain values) beside the published figures of a backbone; models are matched by stage name."""
    if backbone not in backbones():
        raise ReportError(f"{backbone!r} is not a published backbone; choose one of {', '.join(backbones())}.")
    rows = []
    for model, found in report["models"].items():
        ours = {name: (entry["balanced_accuracy"], entry.get("balanced_accuracy_ci")) for name, entry in found["datasets"].items()}
        stage = stage_of(model)
        if set(ours) >= _published_datasets(backbone, stage, shots) > set():
            ours["mean"] = (found["mean_balanced_accuracy"], found.get("mean_balanced_accuracy_ci"))
        rows += [_row(model, dataset, figure, (backbone, stage, shots)) for dataset, figure in ours.items() if figure[0] is not None]
    return rows


def stage_of(model: str) -> str:
    """The training stage that a model's name states; a name without one is a finished model."""
    return next((stage for stage in STAGES if model.lower().replace("-", "_").startswith(stage)), "sc_grpo")


def _published_datasets(backbone: str, stage: str, shots: int) -> set[str]:
    found = {target.dataset for target in targets() if (target.backbone, target.stage, target.shots) == (backbone, stage, shots)}
    return found - {"mean"}


def _row(model: str, dataset: str, figure: tuple[float, list[float] | None], key: tuple[str, str, int]) -> ParityRow:
    found = [target for target in targets() if target.dataset == dataset and (target.backbone, target.stage, target.shots) == key]
    by_source = {target.source.split()[0]: target for target in found}
    paper, supplementary = by_source.get("paper"), by_source.get("supplementary")
    flags = tuple(dict.fromkeys(flag for target in found for flag in target.flags))
    value, bounds = figure
    return ParityRow(model, dataset, value, _value(paper), _value(supplementary), flags, (bounds[0], bounds[1]) if bounds else None)


def _value(target: Target | None) -> float | None:
    return None if target is None else target.value


def _targets(row: Mapping[str, Any], flags: list[dict[str, Any]]) -> Iterator[Target]:
    values = row["values"] | {"mean": sum(row["values"].values()) / len(row["values"])}
    for dataset, value in values.items():
        found = tuple(f"{entry['source'] or 'all sources'}: {entry['flag']}" for entry in flags if _flagged(entry, row, dataset))
        yield Target(row["source"], row["backbone"], row["stage"], row["shots"], dataset, value, found)


def _flagged(flag: Mapping[str, Any], row: Mapping[str, Any], dataset: str) -> bool:
    """Whether a flag is about this figure; a flag without a value for a field is about all of them, one on a dataset also about the mean."""
    same = all(flag[key] in (None, row[key]) for key in ("source", "backbone", "stage", "shots"))
    about_mean = dataset == "mean" and flag["dataset"] in row["values"] and flag["backbone"] is not None
    return same and (flag["dataset"] in (None, dataset) or about_mean)
