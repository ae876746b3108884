"""`iadr1 data …`: look for what is unfit in folders of images, and draw masks from boxes and polygons."""

import argparse
from pathlib import Path

SHAPED = ("coco", "yolo")
LAYOUT_NAMES = ("real_iad", "mvtec", "ds_mvtec", "visa", "mpdd", "dagm", "dtd", "sdd", "sdd2", "btad", *SHAPED)


def add_data(command: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    commands = command.add_subparsers(required=True, metavar="COMMAND")
    _add_audit(commands.add_parser("audit", help="name every file that is unfit, and why; exit code 1 when one stops training"))
    _add_masks(commands.add_parser("masks", help="draw the masks that COCO's and YOLO's boxes and polygons describe, into FOLDER/masks"))


def _add_audit(command: argparse.ArgumentParser) -> None:
    command.add_argument("folders", type=_folder, nargs="+", metavar="FOLDER", help="a data set, or a folder of data sets of one layout")
    command.add_argument("--layout", default="mvtec", choices=LAYOUT_NAMES, help="how the images lie (default: %(default)s)")
    command.add_argument("--named", type=int, default=5, metavar="N", help="files listed of each kind (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="every finding, as one JSON object a line")
    command.set_defaults(run=_audit)


def _add_masks(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=_folder, metavar="FOLDER")
    command.set_defaults(run=_masks)


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"no folder {text}")
    return Path(text)


def _audit(options: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from iadr1.audit import audited, told

    audit = audited(options.folders, layout=options.layout)
    if options.json:
        for finding in audit.findings:
            print(json.dumps({"severity": finding.severity} | asdict(finding), ensure_ascii=False))
    else:
        for line in told(audit, named=options.named):
            print(line)
    return 1 if audit.stops else 0


def _masks(options: argparse.Namespace) -> None:
    from iadr1.datasets.shapes import MASKS, draw_masks

    print(f"{draw_masks(options.folder):,} masks drawn in {options.folder / MASKS}.")
