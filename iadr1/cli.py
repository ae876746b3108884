"""The inspection core from the shell: inspect, score, report, compare with the paper, explain one text, judge and promote models, look after data."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iadr1.cli_data import add_data
from iadr1.cli_doctor import HELP as DOCTOR
from iadr1.cli_doctor import add_doctor
from iadr1.cli_gate import HELP as GATE
from iadr1.cli_gate import add_gate
from iadr1.cli_inspect import HELP, add_inspect
from iadr1.cli_plan import add_plan
from iadr1.cli_yardstick import HELP as YARDSTICK
from iadr1.cli_yardstick import add_yardstick
from iadr1.errors import Iadr1Error
from iadr1.expert_ad.command import add_commands
from iadr1.registry.command import HELP as REGISTRY
from iadr1.registry.command import add_registry
from iadr1.systems.command import add_evaluate, add_systems

if TYPE_CHECKING:
    from iadr1.report import Prediction

GRIDS = range(1, 6)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 1 for an error in the input and 2 for one of usage."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except Iadr1Error as error:
        print(f"iadr1: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader has seen enough ("| head"); without this Python complains while closing the pipe.
        sys.stderr.close()
        return 0
    except OSError as error:
        print(f"iadr1: {error.filename or 'output'}: {error.strerror}.", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="iadr1", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_inspect(commands.add_parser("inspect", help=HELP, description=HELP))
    _add_score(commands.add_parser("score", help="reward completions against their solutions"))
    _add_report(commands.add_parser("report", help="rates, intervals and comparisons from predictions"))
    _add_parity(commands.add_parser("parity", help="a report beside the published figures"))
    _add_explain(commands.add_parser("explain", help="how one text is read and scored"))
    commands.add_parser("backbones", help="the models that can be trained").set_defaults(run=_backbones)
    add_systems(commands.add_parser("systems", help="what IAD-R1 is compared with: needs, prices, and what can be run here"))
    add_evaluate(commands.add_parser("evaluate", help="let one of these systems inspect prepared samples"))
    add_yardstick(commands.add_parser("yardstick", help=YARDSTICK, description=YARDSTICK))
    add_gate(commands.add_parser("gate", help=GATE, description=GATE))
    add_registry(commands.add_parser("registry", help=REGISTRY, description=REGISTRY))
    add_plan(commands.add_parser("plan", help="what a training would take on GPUs: memory, hours, cost"))
    add_doctor(commands.add_parser("doctor", help=DOCTOR))
    add_data(commands.add_parser("data", help="look for what is unfit in data, convert it, draw masks"))
    add_commands(commands.add_parser("expert-ad", help="build and review chains of thought from images and masks"))
    return parser


def _add_score(command: argparse.ArgumentParser) -> None:
    command.add_argument("--input", type=Path, required=True, metavar="COMPLETIONS.jsonl", help='rows {"id", "completion", "solution"}')
    command.add_argument("--output", type=Path, required=True, metavar="SCORES.jsonl", help="rows of rewards, null where not scoreable")
    command.add_argument("--preset", required=True, choices=("paper", "released", "strict"))
    command.add_argument("--grid", type=int, default=3, choices=GRIDS, help="cells on a side of the location grid")
    command.set_defaults(run=_score)


def _add_report(command: argparse.ArgumentParser) -> None:
    command.add_argument("predictions", type=Path, nargs="+", metavar="PREDICTIONS.jsonl")
    command.add_argument("--compare", nargs=2, metavar=("A", "B"), help="test model B against model A on the same images")
    command.add_argument(
        "--validation", type=Path, nargs="+", default=[], metavar="FILE", help="predictions on which thresholds are chosen"
    )
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_const", dest="form", const="json", help="everything, unrounded")
    form.add_argument("--markdown", action="store_const", dest="form", const="markdown", help="tables, also of classes and defect types")
    form.add_argument("--csv", action="store_const", dest="form", const="csv", help="the layout of the paper's result files")
    command.add_argument(
        "--html", type=Path, metavar="PAGE.html", help="write a page of its own as well: tables, charts, and a gallery of every answer"
    )
    command.add_argument(
        "--samples", type=Path, nargs="+", default=[], metavar="SAMPLES.jsonl", help="where the page's pictures and masks are"
    )
    command.add_argument("--logs", type=Path, nargs="+", default=[], metavar="LOG.csv", help="logs of trainings for the page's curves")
    command.add_argument("--backbone", help="the published model whose figures stand beside these, with what is wrong with them")
    command.add_argument("--shots", type=int, default=0, choices=(0, 1, 2, 4), help="reference images of the published run")
    command.add_argument("--grid", type=int, default=3, choices=GRIDS, help="cells on a side of the location grid")
    command.set_defaults(run=_report, form="text")


def _add_parity(command: argparse.ArgumentParser) -> None:
    command.add_argument("report", type=Path, metavar="REPORT.json")
    command.add_argument("--backbone", default="LLaVA-OneVision-SI-0.5B", help="the published model to compare with (default: %(default)s)")
    command.add_argument("--shots", type=int, default=0, choices=(0, 1, 2, 4), help="reference images of the published run")
    command.set_defaults(run=_parity)


def _add_explain(command: argparse.ArgumentParser) -> None:
    command.add_argument("text", metavar="TEXT")
    command.add_argument("--solution", help='the truth, such as "<answer>No</answer>"; adds the rewards')
    command.add_argument("--free", action="store_true", help="read as a base model's free text")
    command.add_argument("--grid", type=int, default=3, choices=GRIDS, help="cells on a side of the location grid")
    command.set_defaults(run=_explain)


def _score(options: argparse.Namespace) -> None:
    from iadr1.samples import write_lines
    from iadr1.scoring import scored_lines

    write_lines(options.output, scored_lines(options.input, preset=options.preset, grid=options.grid))


def _report(options: argparse.Namespace) -> None:
    import json

    from iadr1 import report_tables
    from iadr1.comparison import Comparison
    from iadr1.report import EvalReport

    judged = EvalReport.of(_predictions(options.predictions), grid=options.grid, validation=_predictions(options.validation))
    report = judged.to_dict()
    compared = Comparison.of(_predictions(options.predictions), *options.compare).to_dict() if options.compare else None
    if options.form == "json":
        print(json.dumps(report | ({"comparison": compared} if compared else {}), indent=1, ensure_ascii=False))
    elif options.form == "csv":
        print(report_tables.csv(report), end="")
    else:
        tables = [report_tables.markdown(report)]
        if options.form == "markdown":
            tables += [report_tables.markdown_rates(report), report_tables.markdown_classes(report), report_tables.markdown_types(report)]
            tables += [report_tables.markdown_p_yes(report)]
        tables += [report_tables.markdown_comparison(compared)] if compared else []
        tables += [_beside(report, options)] if options.backbone else []
        print("\n".join(filter(None, tables)), end="")
    if options.html:
        _write_page(options)


def _write_page(options: argparse.Namespace) -> None:
    from iadr1 import report_page
    from iadr1.samples import read_samples, write_lines

    predictions = [*_predictions(options.predictions)]
    shots = dict.fromkeys((prediction.model for prediction in predictions), options.shots)
    first, second = map(report_page.title, options.compare or ("", ""))
    evaluation = report_page.Evaluation(
        predictions,
        samples=[sample for path in options.samples for sample in read_samples(path)],
        compared=[tuple(options.compare)] if options.compare else [],
        backbone=options.backbone,
        shots=shots,
        logs={report_page.title(path.stem): report_page.read_log(path) for path in options.logs},
        title=f"{second} against {first}" if options.compare else "Evaluation",
        grid=options.grid,
    )
    write_lines(options.html, [report_page.page(evaluation)])


def _parity(options: argparse.Namespace) -> None:
    from iadr1.errors import ReportError
    from iadr1.report import EvalReport

    if not options.report.exists() or options.report.is_dir():
        raise ReportError(f"{options.report}: no such file. Write one with `iadr1 report PREDICTIONS.jsonl --json`.")
    report = EvalReport.from_json(options.report.read_text(encoding="utf-8")).to_dict()
    print(_beside(report, options), end="")


def _beside(report: Mapping[str, Any], options: argparse.Namespace) -> str:
    from iadr1.published import parity
    from iadr1.report_tables import markdown_parity

    return markdown_parity(parity(report, backbone=options.backbone, shots=options.shots), options.backbone)


def _explain(options: argparse.Namespace) -> None:
    from iadr1.explain import explanation

    for line in explanation(options.text, solution=options.solution, free=options.free, grid=options.grid):
        print(line)


def _backbones(options: argparse.Namespace) -> None:
    from iadr1.backbone_tables import checkpoints

    print(checkpoints(), end="")


def _predictions(paths: Sequence[Path]) -> "Iterator[Prediction]":
    from iadr1.report import iterate_predictions

    for path in paths:
        yield from iterate_predictions(path)


if __name__ == "__main__":
    sys.exit(main())
