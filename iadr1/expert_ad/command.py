"""iadr1 expert-ad: build the training rows of Expert-AD from images and masks, and review its chains."""

import argparse
import fcntl
import json
import math
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from iadr1.errors import DatasetError, ParamsError, TeacherError

if TYPE_CHECKING:
    from iadr1.expert_ad.build import Built
    from iadr1.expert_ad.sources import Regions
    from iadr1.expert_ad.teachers import Teacher
    from iadr1.params import Params
    from iadr1.samples import Sample

CHAINS = "chains.jsonl"
URL, KEY = "IADR1_TEACHER_URL", "IADR1_TEACHER_KEY"  # as in endpoint.py, which is not loaded to print the help


def add_commands(command: argparse.ArgumentParser) -> None:
    """The sub-commands of `iadr1 expert-ad`."""
    commands = command.add_subparsers(required=True, metavar="COMMAND")
    _add_build(commands.add_parser("build", help="pairs, chains, gates, rows; goes on where it was stopped", description=build.__doc__))
    _add_review(
        commands.add_parser("review", help="accept, edit or reject chains on a local page or in a table", description=review.__doc__)
    )


def _add_build(command: argparse.ArgumentParser) -> None:
    command.add_argument("--params", type=Path, default=Path("params.yaml"), help="whose `prepare` and `seed` say what is built")
    command.add_argument("--images", type=Path, help="folder that holds the data sets of prepare.train (default: where fetch puts them)")
    command.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="rows, chains, report, and the replies so far")
    command.add_argument(
        "--teacher", metavar="MODEL", help=f"a model of the OpenAI-compatible endpoint in ${URL} (key: ${KEY}); else offline"
    )
    command.add_argument("--estimate", action="store_true", help="tell what is still to be asked and what it may cost, and stop")
    command.add_argument("--price", type=float, nargs=2, metavar=("IN", "OUT"), default=(0.0, 0.0), help="money for a million tokens")
    command.add_argument("--budget", type=float, default=math.inf, help="money that a run may cost by the estimate, else it does not start")
    command.add_argument("--concurrency", type=int, default=8, help="requests under way at a time (default: %(default)s)")
    command.add_argument("--per-minute", type=float, default=math.inf, help="most requests a minute (default: no limit)")
    command.add_argument("--timeout", type=float, default=120.0, help="seconds until a request counts as lost (default: %(default)s)")
    command.add_argument("--retries", type=int, default=6, help="how often a request is sent again after a fault (default: %(default)s)")
    command.add_argument("--spare", type=float, default=0.0, help="share of rows drawn beyond those asked for, to fill what is rejected")
    command.add_argument("--describe", nargs="*", choices=("sc_grpo",), help="let the teacher also name the fine types of the SC-GRPO rows")
    command.add_argument("--reviewed-only", action="store_true", help="leave out rows that nobody has reviewed")
    command.set_defaults(run=build)


def _add_review(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, metavar="FOLDER", help="where `build` wrote")
    command.add_argument("--reviewer", help="whose decisions a table holds; on the page, everybody gives a name")
    command.add_argument("--port", type=int, default=8060, help="of the page, on 127.0.0.1 (default: %(default)s; 0: any free one)")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--export", type=Path, metavar="TABLE.csv", help="write a table for a spreadsheet and stop")
    what.add_argument("--import", type=Path, metavar="TABLE.csv", dest="table", help="take over the verdicts of a table and stop")
    what.add_argument("--agreement", action="store_true", help="tell how far the reviewers agree and stop")
    command.set_defaults(run=review)


def review(options: argparse.Namespace) -> None:
    """Review the chains of a build; the next build of the same folder leaves out what was rejected and takes over what was edited."""
    from iadr1.expert_ad import review as reviews

    rows, folder = reviews.read_rows(options.folder), options.folder / "reviews"
    if (options.export or options.table) and not options.reviewer:
        raise DatasetError("a table holds the decisions of one person: name them with --reviewer.")
    if options.export:
        reviews.export_csv(rows, reviews.read_decisions(folder).get(options.reviewer, {}), options.export)
        print(
            f"expert-ad: {len(rows)} chains in {options.export}. Fill in verdict (accept, edit, reject), edited_chain and note; then --import it."
        )
    elif options.table:
        decisions = reviews.import_csv(rows, options.table)
        reviews.record(folder, options.reviewer, decisions)
        print(f"expert-ad: {len(decisions)} decisions of {options.reviewer} taken over.")
    elif options.agreement:
        print(json.dumps(reviews.agreement(reviews.read_decisions(folder)), indent=1))
    else:
        _serve(options.folder, options.port)


def _serve(folder: Path, port: int) -> None:
    import socket

    import uvicorn

    from iadr1.expert_ad.review_page import review_app

    with socket.create_server(("127.0.0.1", port)) as listening:
        print(
            f"expert-ad: review at http://127.0.0.1:{listening.getsockname()[1]}/ (Ctrl+C ends; every decision is on the disk)", flush=True
        )
        uvicorn.Server(uvicorn.Config(review_app(folder), log_level="warning")).run(sockets=[listening])


def build(options: argparse.Namespace) -> None:
    """Build Expert-AD from the data sets of `prepare.train`. Run it again after a kill: what was answered is not asked again."""
    from iadr1.params import load

    params = load(options.params)
    with _alone(options.into):
        _build(options, params)


def _build(options: argparse.Namespace, params: "Params") -> None:
    from iadr1.expert_ad import build as builder
    from iadr1.expert_ad import costs
    from iadr1.expert_ad.replies import Kept, in_threads
    from iadr1.expert_ad.review import decisions_of
    from iadr1.expert_ad.variants import varied

    if options.describe and params.prepare.types == "coarse":
        raise ParamsError(f"--describe {options.describe[0]} asks for fine types, but prepare.types is coarse. Leave one of them out.")
    parts, regions = _parts(params, _images(options, params), spare=options.spare)
    described = builder.CHAINED | frozenset(options.describe or ())
    teacher = Kept(_teacher(options), options.into / "replies")
    pairs = {part: builder.pairs_of(samples, regions, types=params.prepare.types) for part, samples in parts.items()}
    asked = [pair for part in pairs for pair in pairs[part] if builder.describable(pair, part, described)]
    cost = costs.estimate(asked, teacher)
    print(f"expert-ad: {len(asked)} pairs to describe; still to be asked: about {cost.said(options.price)}.", flush=True)
    if options.estimate:
        return
    if cost.money(options.price) > options.budget:
        raise TeacherError(
            f"about {cost.money(options.price):.2f} is more than the budget of {options.budget:.2f}. Raise it, or build fewer rows."
        )
    built = builder.build(
        parts, regions, teacher=teacher, described=described, rejecting=frozenset(params.prepare.reject),
        rows=params.prepare.rows, anomalous_share=params.prepare.anomalous_shares, grid=params.prepare.grid, types=params.prepare.types,
        decide=decisions_of(options.into / "reviews", reviewed_only=options.reviewed_only), mapper=in_threads(options.concurrency, teacher),
    )  # fmt: skip
    built = replace(built, parts=varied(built.parts, params.prepare))
    _write(built, options.into)
    _tell(built, options.into, f"this run asked {costs.paid(teacher.asked).said(options.price)}")


def _images(options: argparse.Namespace, params: "Params") -> Path:
    return options.images or Path((params.fetch.source == "folder" and params.fetch.path) or params.experiment.fetched)


def _parts(params: "Params", images: Path, *, spare: float) -> "tuple[dict[str, list[Sample]], Regions]":
    """The samples of each part, annotated from their masks, with a share of spare ones; no two parts share a physical sample."""
    from iadr1.expert_ad import sources
    from iadr1.expert_ad.build import CHAINED
    from iadr1.splits import divided

    prepare = params.prepare
    train = sources.training_samples(prepare.train, images)
    drawn = {part: math.ceil(rows * (1 + spare)) for part, rows in params.prepare.rows.items()}
    parts = divided(train, rows=drawn, annotated_only=CHAINED, anomalous_share=prepare.anomalous_shares, seed=params.seed)
    chosen = [sample for samples in parts.values() for sample in samples]
    known, regions, _ = sources.annotated(chosen, grid=prepare.grid, multi_view=sources.multi_view(prepare.train))
    return {part: [known[sample.id] for sample in samples if sample.id in known] for part, samples in parts.items()}, regions


def _teacher(options: argparse.Namespace) -> "Teacher":
    from iadr1.expert_ad.endpoint import Endpoint, EndpointTeacher, endpoint_of
    from iadr1.expert_ad.teachers import OfflineTeacher

    if options.teacher is None:
        return OfflineTeacher()
    pace = {"timeout": options.timeout, "retries": options.retries, "per_minute": options.per_minute}
    teacher = EndpointTeacher(Endpoint(*endpoint_of(os.environ, options.teacher), **pace))
    stopped = TeacherError("stopped. What was answered is kept: run the same command again to go on.")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: teacher.stop(stopped))
    return teacher


@contextmanager
def _alone(folder: Path) -> "Iterator[None]":
    """Refuse a second build into the same folder while one runs."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatasetError(f"{folder}: another build is at work here. Wait for it, or build into another folder.") from error
        yield


def _write(built: "Built", folder: Path) -> None:
    """The rows of each part, every chain with its judgement, and last the report: where it is, all else is whole."""
    from iadr1.samples import write_lines, write_samples

    for part, rows in built.parts.items():
        write_samples(folder / f"{part}.jsonl", rows)
    write_lines(folder / CHAINS, (json.dumps(judgement.to_dict(), ensure_ascii=False) for judgement in built.judgements))
    write_lines(folder / "report.json", [json.dumps(built.report(), indent=1, ensure_ascii=False)])


def _tell(built: "Built", folder: Path, cost: str) -> None:
    report = built.report()
    for part, counts in report["rows"].items():
        print(f"expert-ad: {part}: {counts['normal']} normal and {counts['anomalous']} defective rows.")
    caught = {name: gate for name, gate in report["gates"].items() if gate["found"]}
    for name, gate in caught.items():
        print(f"expert-ad: gate {name}: {gate['found']} chains ({gate['rate']:.1%}), such as: {gate['examples'][0]}")
    for fault, count in report["faults"].items():
        print(f"expert-ad: {count} pairs without a chain: {fault}.")
    print(f"expert-ad: {report['accepted']} of {report['described']} chains accepted; {cost}; all replies in {folder}: "
          f"{report['tokens_in']} tokens in, {report['tokens_out']} out.")  # fmt: skip
