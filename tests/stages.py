"""A workspace for stage tests: the project's own parameters with a few changes, in an empty folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iadr1.params import Params, parse, read
from tasks._run import Workspace

ROOT = Path(__file__).parents[1]


def workspace(**changes: Mapping[str, Any]) -> tuple[Params, Workspace]:
    """The parameters of the project with changed keys by section, and the workspace that they name."""
    tree = read(ROOT / "params.yaml")
    for section, keys in changes.items():
        tree[section] = {**tree[section], **keys}
    params = parse(tree, source="a test")
    return params, Workspace.of(params, ROOT / "params.yaml")


def of_folder(folder: Path, **prepare: Any) -> tuple[Params, Workspace]:
    """The workspace of a user's folder in MVTec layout, for training and for test."""
    source = {"layout": "mvtec", "folder": "."}
    rows = {"pa_sft_rows": 10, "sc_grpo_rows": 6, "validation_rows": 4}
    return workspace(
        experiment={"fetched": "data/raw_manifest.csv"},
        fetch={"source": "folder", "path": str(folder)},
        prepare={"train": {"parts": source}, **rows, **prepare},
        evaluate={"datasets": {"parts": source}},
        validate={"minimum_rows": 4},
    )
