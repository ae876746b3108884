"""The records of the backbones as Markdown tables, for the command line and docs/backbones.md."""

from collections.abc import Sequence

from iadr1.backbones import BACKBONES, PARTS, Backbone
from iadr1.report_tables import table


def checkpoints() -> str:
    """One row for each published checkpoint."""
    header = ["model type", "hub id", "commit", "the paper", "max_pixels", "images in vLLM"]
    return table(header, [row for record in BACKBONES.values() for row in _checkpoint_rows(record)])


def _checkpoint_rows(record: Backbone) -> list[list[str]]:
    limits = ["yes" if record.limits_pixels else "null", str(record.vllm_images or "any")]
    return [
        [record.model_type, checkpoint.hub, checkpoint.commit or "not confirmed", checkpoint.paper, *limits]
        for checkpoint in record.checkpoints
    ]


def parts() -> str:
    """One row for each family: the prefixes of the parameter names of its parts, which `freeze` names."""
    return table(
        ["model type", *PARTS], [[name, *(_prefixes(getattr(record, part)) for part in PARTS)] for name, record in BACKBONES.items()]
    )


def _prefixes(names: Sequence[str]) -> str:
    return ", ".join(f"`{name.rstrip('.')}`" for name in names)
