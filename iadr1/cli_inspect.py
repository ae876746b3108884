"""`iadr1 inspect`: a verdict on images from a shell, for a person, a script or a page."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from iadr1.errors import DatasetError, ModelError

if TYPE_CHECKING:
    from iadr1.engines import Engine
    from iadr1.inspection import Inspection

HELP = "is there a defect in these images, where, of what type, and why"
EXAMPLES = """\
examples:
  iadr1 inspect part.png                                   by the registry's production model, else the one of staging
  iadr1 inspect part.png --model models/sc_grpo            by a model folder
  iadr1 inspect part.png --reference good.png              beside a good part of the same product
  iadr1 inspect photos --out today                         a folder: a table, and today/index.html with every picture
  iadr1 inspect part.png --json | jq -r .answer            for a program; `--schema` prints the JSON Schema
  iadr1 inspect part.png >/dev/null && echo ship it        by the exit code alone

exit codes:
  0   every image is good
  10  a defect was found in at least one
  1   no defect was found, but an image could not be read, or a model's answer: never taken for good
  2   the command was given wrongly
"""
SHORTEST_BAR = 2  # images


def add_inspect(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `inspect`."""
    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    command.add_argument("images", nargs="*", metavar="IMAGE", help="images, or folders of images (with the folders in them)")
    command.add_argument(
        "--reference", action="append", default=[], metavar="IMAGE", help="a good part of the same product; up to four times"
    )
    command.add_argument(
        "--model", metavar="MODEL", help="a folder, models:/NAME@ALIAS or models:/NAME/VERSION (default: production, staging)"
    )
    command.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where the pictures with verdicts go (default: inspection; none with --json)"
    )
    command.add_argument("--json", action="store_true", help="one JSON object a line for each image, as it is ready")
    command.add_argument(
        "--grid", type=int, default=3, choices=range(1, 6), help="cells on a side of the location grid (default: %(default)s)"
    )
    command.add_argument("--schema", action="store_true", help="print the JSON Schema of such an object, and end")
    command.set_defaults(run=_inspect, usage_error=command.error)


def _inspect(options: argparse.Namespace) -> int:
    from iadr1.inspection import exit_code, inspections, schema_text

    if options.schema:
        print(schema_text(), end="")
        return 0
    if not options.images or len(options.reference) > 4:
        options.usage_error("no image is given." if not options.images else "at most four references; more were never trained.")
    images, whole = _images(options.images), any(Path(given).is_dir() for given in options.images)
    name, engine = _engine(options.model, len(options.reference))
    found: list[Inspection] = []
    with _bar(len(images)) as done:
        for one in inspections(engine, images, references=options.reference, grid=options.grid, done=done):
            found.append(one)
            if options.json:
                print(one.to_json(), flush=True)
    _tell(options, found, name, whole)
    return exit_code(found)


def _images(given: Sequence[str]) -> list[str]:
    """The files named, and those in the folders named, each once; raises DatasetError for what is not there."""
    from iadr1.datasets.folders import IMAGES

    images: list[str] = []
    for name in given:
        path = Path(name)
        if not path.exists():
            raise DatasetError(f"{name}: no such file or folder.")
        inside = (
            sorted(str(file) for file in path.rglob("*") if file.suffix.lower() in IMAGES and file.is_file()) if path.is_dir() else [name]
        )
        if not inside:
            raise DatasetError(f"{name}: no images in this folder; an image ends with {', '.join(sorted(IMAGES))}.")
        images += inside
    return list(dict.fromkeys(images))


def _engine(model: str | None, references: int) -> "tuple[str, Engine]":
    """What the model is called, and an engine that answers with it."""
    from iadr1 import registry
    from iadr1.backbones import backbone_of
    from iadr1.engines import ENGINES

    settings = {"batch_size": 8, "max_new_tokens": 512}
    if model is None or model.startswith(registry.SCHEME):
        found = registry.live() if model is None else registry.registered(model)
        name, folder, settings = found.name, found.folder, settings | dict(found.settings)
    else:
        name, folder = model, Path(model)
        if not folder.is_dir():
            raise ModelError(f"--model {model}: no such folder. Name a model folder, or a registered model as models:/NAME@ALIAS.")
    backbone_of(folder)
    if missing := [library for library in ("torch", "transformers") if find_spec(library) is None]:
        raise ModelError(f"inspect needs {' and '.join(missing)}, which the library alone does not bring. Run `pip install 'iadr1[cpu]'`.")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return name, ENGINES["transformers"](folder, **settings, images=1 + references)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm

    # A terminal that shows the answers as well needs no bar for one image.
    with tqdm(
        total=total, desc="inspect", unit=" images", disable=total < SHORTEST_BAR, mininterval=0.5 if sys.stderr.isatty() else 10
    ) as bar:
        yield bar.update


def _tell(options: argparse.Namespace, found: "Sequence[Inspection]", name: str, whole: bool) -> None:
    from iadr1 import inspection_page

    out = options.out or (None if options.json else Path("inspection"))
    pictures = inspection_page.save_pictures(found, out) if out else {}
    page = inspection_page.save_page(found, out, model=name) if out and (whole or len(found) > 1) else None
    for one in found:
        if one.error:
            print(f"iadr1: {one.image}: {one.error}", file=sys.stderr)
    if options.json:
        return
    if page:
        print(inspection_page.table_of(found), end="")
        print(f"\n{inspection_page.summary(found)} By {name}. Page: {page}")
    else:
        print(inspection_page.told(found[0], model=name, picture=pictures.get(found[0].image)))
