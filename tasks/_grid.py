"""Grids: a table of the paper as rows of changed keys, and the DVC graph of each row.

A row shares with the default run of its seed whatever its change does not touch: fetched images, prepared samples, the PA-SFT model. Its own
graph (experiments/rows/…/dvc.yaml) holds only the stages that its change reaches and that its figures need.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from iadr1.errors import ParamsError
from iadr1.params import Section, read, suggestion
from tasks._experiment import FOLDER, compose, folders, overlaid, write

TABLES = FOLDER / "tables"
# What evaluate reads of each model.
MODELS = {"base": "${pa_sft.backbone}", "pa_sft": "${experiment.models}/pa_sft", "sc_grpo": "${experiment.models}/sc_grpo"}
# Folders that a row finds where another run has made them, by the stage that makes them.
SHARED = {"fetch": "fetched", "prepare": "prepared", "pa_sft": "pa_sft"}

Tree = Mapping[str, Any]
Figures = Mapping[str, float | Mapping[str, float]]


class Row(Section):
    """A row of a table: the keys that change, which model of the run it shows, and what the paper has there by backbone and setting (`0-shot`)."""

    label: str
    model: Literal["base", "pa_sft", "sc_grpo"]
    change: dict[str, Any] = Field(default_factory=dict)
    paper: dict[str, dict[str, float | dict[str, float]]] = Field(default_factory=dict)


class Claim(Section):
    """What the paper says: rows from the worst to the best (`order`), or one that is better than all others (`best`); on all data sets or some."""

    says: str
    order: list[str] = Field(default_factory=list)
    best: str | None = None
    datasets: list[str] = Field(default_factory=list)

    def pairs(self, labels: Sequence[str]) -> list[tuple[str, str]]:
        """The rows that it compares, the better one second."""
        if self.best is not None:
            return [(label, self.best) for label in labels if label != self.best]
        return list(zip(self.order, self.order[1:], strict=False))


class Grid(Section):
    """A table: its rows, and what the paper says about them."""

    title: str
    rows: list[Row]
    claims: list[Claim]

    @property
    def labels(self) -> list[str]:
        """The names of the rows."""
        return [row.label for row in self.rows]


@dataclass(frozen=True, slots=True)
class Run:
    """A graph to bring up to date, and the parameters that it was composed of."""

    pipeline: Path
    tree: Tree

    @property
    def name(self) -> str:
        """The name of the experiment."""
        return str(self.tree["experiment"]["name"])


def grid_named(table: str) -> Grid:
    """The grid of a table; raises ParamsError where there is none, or for a row that a claim names and that is not there."""
    file = TABLES / f"{table}.yaml"
    if not file.is_file():
        raise ParamsError(f"{file}: no such table; {suggestion(table, [path.stem for path in TABLES.glob('*.yaml')])}")
    try:
        grid = TypeAdapter(Grid).validate_python(read(file))
    except ValidationError as error:
        problem = error.errors()[0]
        raise ParamsError(f"{file}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}; found {problem['input']!r}.") from error
    for claim in grid.claims:
        for label in [*claim.order, *([claim.best] if claim.best else [])]:
            if label not in grid.labels:
                raise ParamsError(f"{file}: the claim '{claim.says}' names {label!r}, which is no row; {suggestion(label, grid.labels)}")
        if not claim.pairs(grid.labels):
            raise ParamsError(f"{file}: the claim '{claim.says}' compares nothing. Give it an order of two rows, or the best one.")
    return grid


def default_run(seed: int, *, profile: str | None) -> Run:
    """The run of params.yaml, or of the experiment `profile`, with this seed: the root's own or that of `make run EXPERIMENT=seed-1`."""
    run = Run(Path("dvc.yaml"), read(Path("params.yaml"))) if profile is None else _composed(profile)
    if run.tree["seed"] == seed:
        return run
    name = "-".join([*([profile] if profile else []), "seed", str(seed)])
    if (FOLDER / f"{name}.yaml").is_file():
        return _composed(name)
    stays = run.tree["fetch"]["source"] == "folder"
    tree = {**run.tree, "seed": seed, "experiment": folders(name, stays=stays)}
    return Run(write(tree, read(Path("dvc.yaml")), origin=f"seed {seed}"), tree)


def _composed(name: str) -> Run:
    pipeline = compose(name, None)
    return Run(pipeline, read(pipeline.with_name("params.yaml")))


def row_run(row: Row, default: Run, *, source: str) -> Run:
    """The run of a row: the default run itself where the change reaches nothing that the row's model is made from."""
    tree = overlaid(default.tree, row.change, source=source)
    changed = [key for key in _keys(row.change) if _at(tree, key) != _at(default.tree, key)]
    root = read(Path("dvc.yaml"))
    stages = stages_of(root["stages"], changed, model=row.model)
    if "evaluate" not in stages:
        return default
    name = f"rows/{default.name}/{row_name(tree, changed)}--{row.model}"
    home = folders(name, stays=tree["fetch"]["source"] == "folder")
    tree["experiment"] = home | {key: _folder(default.tree, key) for stage, key in SHARED.items() if stage not in stages}
    tree["evaluate"] = {**tree["evaluate"], "models": [row.model]}
    return Run(write(tree, _own(root, stages, default.tree, model=row.model), origin=source), tree)


def stages_of(graph: Mapping[str, Any], changed: Sequence[str], *, model: str) -> list[str]:
    """The stages that a row runs: those that a changed key reaches, and that evaluating this one model needs."""
    needs = {name: {before for before in graph if _is_made_by(graph[before], _deps(name, graph[name], model))} for name in graph}
    reached: set[str] = set()
    for name, stage in graph.items():
        if needs[name] & reached or any(_touches(key, stated) for key in changed for stated in _keys_read(stage)):
            reached.add(name)
    needed, waiting = set(), ["evaluate"]
    while waiting:
        name = waiting.pop()
        needed.add(name)
        waiting += needs[name] - needed
    return [name for name in graph if name in reached & needed]


def row_name(tree: Tree, changed: Sequence[str]) -> str:
    """A folder's name that says what has changed: no two changes share one, and the same change of two tables has one."""
    words = "-".join(f"{key.replace('.', '-')}-{_words(_at(tree, key))}" for key in sorted(changed))
    clean = re.sub(r"[^a-z0-9_.-]+", "_", words.lower())
    return clean if len(clean) <= 80 else f"{clean[:70].rstrip('-_')}-{hashlib.sha256(clean.encode()).hexdigest()[:8]}"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return "-".join(f"{key}-{_words(child)}" for key, child in sorted(value.items()))
    if isinstance(value, list):
        return "-".join(map(_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _keys(change: Mapping[str, Any]) -> list[str]:
    return [f"{section}.{key}" for section, keys in change.items() if isinstance(keys, dict) for key in keys] + [
        section for section, value in change.items() if not isinstance(value, dict)
    ]


def _at(tree: Tree, key: str) -> Any:
    section, _, name = key.partition(".")
    return tree[section].get(name) if name else tree[section]


def _keys_read(stage: Mapping[str, Any]) -> Iterator[str]:
    """The keys that a stage states under `params`, or names in its paths."""
    for entry in stage.get("params", ()):
        yield from next(iter(entry.values()))
    yield from re.findall(r"\$\{([a-z_.]+)\}", str(stage.get("deps", ())))


def _touches(changed: str, stated: str) -> bool:
    return f"{changed}.".startswith(f"{stated}.") or f"{stated}.".startswith(f"{changed}.")


def _made(stage: Mapping[str, Any]) -> list[str]:
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, ())]
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def _is_made_by(stage: Mapping[str, Any], deps: Sequence[str]) -> bool:
    return any(f"{dep}/".startswith(f"{made}/") for made in _made(stage) for dep in deps)


def _deps(name: str, stage: Mapping[str, Any], model: str) -> list[str]:
    """What a stage depends on, when only one model is evaluated."""
    others = {folder for other, folder in MODELS.items() if other != model}
    return [dep for dep in stage["deps"] if not (name == "evaluate" and dep in others)]


def _own(root: Mapping[str, Any], stages: Sequence[str], default: Tree, *, model: str) -> dict[str, Any]:
    """The row's stages; what no stage of its own makes, it finds where the default run has made it."""
    own = {}
    for name in stages:
        absent = [dep for other, stage in root["stages"].items() if other not in stages for dep in _deps_on(stage, root["stages"][name])]
        deps = [_resolved(dep, default) if dep in absent else dep for dep in _deps(name, root["stages"][name], model)]
        own[name] = {**root["stages"][name], "deps": deps}
    made = str([_made(stage) for stage in own.values()])
    plots = [plot for plot in root.get("plots", ()) if all(file in made for told in plot.values() for file in told["y"])]
    return {**root, "stages": own, "plots": plots}


def _deps_on(stage: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [dep for dep in other["deps"] if _is_made_by(stage, [dep])]


def _resolved(dep: str, default: Tree) -> str:
    return re.sub(r"\$\{experiment\.([a-z_]+)\}", lambda found: str(default["experiment"][found[1]]), dep)


def _folder(default: Tree, key: str) -> str:
    home = default["experiment"]
    made: dict[str, str] = {"prepared": f"{home['data']}/prepared", "pa_sft": f"{home['models']}/pa_sft"}
    return str(home.get(key) or made[key])
