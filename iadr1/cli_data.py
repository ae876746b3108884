"""`iadr1 data …`: look for what is unfit in folders of images, convert lists of them, draw masks from boxes and polygons."""

import argparse
from pathlib import Path

SHAPED = ("coco", "yolo")
FORM_NAMES = ("samples", "meta", "test", "mmad", "pa_sft", "sc_grpo", "llamafactory", "hf")
LAYOUT_NAMES = ("real_iad", "mvtec", "ds_mvtec", "visa", "mpdd", "dagm", "dtd", "sdd", "sdd2", "btad", *SHAPED)


def add_data(command: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    commands = command.add_subparsers(required=True, metavar="COMMAND")
    _add_audit(commands.add_parser("audit", help="name every file that is unfit, and why; exit code 1 when one stops training"))
    _add_convert(commands.add_parser("convert", help="other projects' lists to ours and back, losing nothing"))
    _add_masks(commands.add_parser("masks", help="draw the masks that COCO's and YOLO's boxes and polygons describe, into FOLDER/masks"))
    _add_schemas(commands.add_parser("schemas", help="write the JSON Schemas of the forms that convert reads and writes"))


def _add_audit(command: argparse.ArgumentParser) -> None:
    command.add_argument("folders", type=_folder, nargs="+", metavar="FOLDER", help="a data set, or a folder of data sets of one layout")
    command.add_argument("--layout", default="mvtec", choices=LAYOUT_NAMES, help="how the images lie (default: %(default)s)")
    command.add_argument("--named", type=int, default=5, metavar="N", help="files listed of each kind (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="every finding, as one JSON object a line")
    command.set_defaults(run=_audit)


def _add_masks(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=_folder, metavar="FOLDER")
    command.set_defaults(run=_masks)


def _add_convert(command: argparse.ArgumentParser) -> None:
    command.add_argument("input", type=Path, metavar="INPUT", help="a file, or a folder where the form is a layout or hf")
    command.add_argument("output", type=Path, metavar="OUTPUT")
    command.add_argument("--from", required=True, choices=(*FORM_NAMES, *LAYOUT_NAMES), dest="source", help="samples is our own JSONL")
    command.add_argument("--to", required=True, choices=FORM_NAMES, help="llamafactory's OUTPUT is a dataset_info.json; rows go beside it")
    command.add_argument("--dataset", help="the data set's name (default: the first folder of each path)")
    command.add_argument("--name", help="which data set of a dataset_info.json")
    command.add_argument("--shots", type=int, metavar="N", help="references in each training row (default: all that a sample has)")
    command.add_argument("--plain", action="store_true", help="leave out the key that keeps what the form has no place for")
    command.set_defaults(run=_convert)


def _add_schemas(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=_folder, metavar="FOLDER")
    command.set_defaults(run=_schemas)


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


def _convert(options: argparse.Namespace) -> None:
    from iadr1 import interchange

    items = interchange.read(options.source, options.input, dataset=options.dataset, name=options.name)
    interchange.write(options.to, options.output, items, shots=options.shots, plain=options.plain, name=options.name)
    for what, count in sorted(interchange.dropped(options.to, items, shots=options.shots, plain=options.plain).items()):
        print(f"{what}: not kept for {count:,} samples.")
    print(f"{len(items):,} samples, {sum(item.sample.anomalous for item in items):,} of them defective, in {options.output}.")


def _schemas(options: argparse.Namespace) -> None:
    from iadr1.interchange.models import FILES, schema_text

    for form in FILES:
        (options.folder / f"{form}.json").write_text(schema_text(form), encoding="utf-8")
    print(f"{len(FILES)} schemas in {options.folder}.")
