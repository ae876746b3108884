"""Composes an experiment: the changed keys of `experiments/NAME.yaml` over `params.yaml`, and a DVC graph with folders of its own.

python -m tasks._experiment NAME [--data FOLDER]    writes experiments/NAME/{params,dvc}.yaml and prints the path of the second
"""

# The generated files are not git-ignored, because DVC refuses a dvc.yaml that is.
# Committed with their dvc.lock they make the experiment reproducible.

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from iadr1.errors import DatasetError, Iadr1Error, ParamsError
from iadr1.params import parse, read, suggestion

FOLDER = Path("experiments")
# Folders of the root experiment that an experiment of the same name would write into.
TAKEN = frozenset({"root", "rows", "tables", "raw", "prepared", "predictions", "evaluate", "data_docs", "pa_sft", "sc_grpo", "expert_ad"})


def compose(name: str, data: str | None) -> Path:
    """Write the experiment's parameters and graph; the path of its dvc.yaml."""
    source = source_of(name)
    tree = overlaid(read(Path("params.yaml")), read(source), source=str(source))
    tree["fetch"]["path"] = _images(tree["fetch"], name, data)
    tree["experiment"] = folders(name, stays=tree["fetch"]["source"] == "folder")
    return write(tree, read(Path("dvc.yaml")), origin=str(source))


def write(tree: Mapping[str, Any], root: Mapping[str, Any], *, origin: str) -> Path:
    """Write the parameters of an experiment and the stages of `root` as its own; the path of its dvc.yaml. `origin` names it in errors."""
    parse(tree, source=origin)
    name = tree["experiment"]["name"]
    here = FOLDER / name
    here.mkdir(parents=True, exist_ok=True)
    _write(here / "params.yaml", tree, f"{origin} over params.yaml")
    _write(here / "dvc.yaml", graph(root, reads=files_read(tree), above="/".join([".."] * len(here.parts))), "dvc.yaml")
    return here / "dvc.yaml"


def overlaid(base: Mapping[str, Any], changes: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    """`base` with the keys of each section replaced as a whole by those of `changes`."""
    tree = {section: dict(value) if isinstance(value, dict) else value for section, value in base.items()}
    for section, value in changes.items():
        if section not in base or section == "experiment":
            raise ParamsError(f"{source}: {section} is not a parameter; {suggestion(section, base.keys() - {'experiment'})}")
        if isinstance(base[section], dict) and not isinstance(value, dict):
            raise ParamsError(f"{source}: {section} has to hold keys and values; found {value!r}.")
        tree[section] = {**tree[section], **value} if isinstance(value, dict) else value
    return tree


def files_read(tree: Mapping[str, Any]) -> dict[str, list[str]]:
    """What stages read of the user's, as an experiment's graph names it."""
    fetch, reviews = tree["fetch"], tree["prepare"]["reviews"]
    images = ["${fetch.path}"] * (fetch["source"] == "folder") + ["${fetch.manifest}"] * bool(fetch["manifest"])
    return {"fetch": images, "prepare": ["${prepare.reviews}"] * bool(reviews)}


def graph(root: Mapping[str, Any], *, reads: Mapping[str, Sequence[str]], above: str) -> dict[str, Any]:
    """The root's stages and plots, for a dvc.yaml below the project's root, which it finds at `above`."""
    stages = {name: {"wdir": above, **stage} for name, stage in root["stages"].items()}
    for name, files in reads.items():
        if name in stages:
            stages[name]["deps"] = [*stages[name].get("deps", ()), *files]
    return {**root, "stages": stages, "plots": [_plot_from_below(plot, above) for plot in root.get("plots", ())]}


def _plot_from_below(plot: Mapping[str, Any], above: str) -> dict[str, Any]:
    """A plot's files are named from the folder of its dvc.yaml; `wdir` is for stages only."""
    return {title: {**told, "y": {f"{above}/{file}": columns for file, columns in told["y"].items()}} for title, told in plot.items()}


def source_of(name: str) -> Path:
    """The file of changed keys of an experiment; raises ParamsError where there is none, or where the name cannot be one."""
    source = FOLDER / f"{name}.yaml"
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name in TAKEN:
        raise ParamsError(f"'{name}' cannot be the name of an experiment: use a-z, 0-9, - and _, and none of {', '.join(sorted(TAKEN))}.")
    if not source.is_file():
        there = [path.stem for path in FOLDER.glob("*.yaml")]
        raise ParamsError(f"{source}: no such experiment; {suggestion(name, there)} It has to hold the keys of params.yaml that change.")
    return source


def _images(fetch: Mapping[str, Any], name: str, data: str | None) -> str | None:
    if fetch["source"] != "folder":
        if data is not None:
            raise ParamsError(f"experiments/{name}.yaml brings its own images; for DATA={data} set `fetch: {{source: folder}}` in it.")
        path: str | None = fetch.get("path")
        return path
    folder = data or fetch.get("path")
    if not folder:
        raise ParamsError(f"the experiment {name} reads images of yours: make run EXPERIMENT={name} DATA=<folder>.")
    if not Path(folder).is_dir():
        raise DatasetError(f"DATA={folder}: no such folder. Name one that holds data sets in MVTec layout.")
    if not any(Path(folder).iterdir()):
        raise DatasetError(f"DATA={folder}: the folder is empty. Name one that holds data sets in MVTec layout.")
    return str(Path(folder))


def folders(name: str, *, stays: bool) -> dict[str, str]:
    """The folders of an experiment; `stays`: its images remain where the user has them."""
    return {
        "name": name,
        "params": str(FOLDER / name / "params.yaml"),
        "fetched": f"data/{name}/{'raw_manifest.csv' if stays else 'raw'}",
        "data": f"data/{name}",
        "models": f"models/{name}",
        "reports": f"reports/{name}",
        "checkpoints": f".checkpoints/{name}",
    }


def _write(path: Path, tree: Mapping[str, Any], origin: str) -> None:
    text = f"# Made from {origin} by tasks/_experiment.py: change those.\n" + yaml.safe_dump(dict(tree), sort_keys=False, width=140)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Compose the experiment that the command line names."""
    parser = argparse.ArgumentParser("python -m tasks._experiment", description=str(__doc__).partition("\n")[0])
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--data", metavar="FOLDER")
    given = parser.parse_args()
    try:
        print(compose(given.name, given.data))
    except Iadr1Error as error:
        sys.exit(f"experiment: {error}")


if __name__ == "__main__":
    main()
