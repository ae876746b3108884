"""iadr1 systems and iadr1 evaluate: what the systems of Table 1 need, and their predictions on the prepared test sets."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from iadr1.errors import DatasetError, EngineError, ParamsError

if TYPE_CHECKING:
    from iadr1.remote.replies import Replies, Reply
    from iadr1.systems.catalogue import Catalogue, Standing
    from iadr1.systems.evaluation import Estimate, Exam


def add_systems(command: argparse.ArgumentParser) -> None:
    """The options of `iadr1 systems`."""
    command.add_argument("--json", action="store_true", help="everything, as one JSON list")
    command.add_argument(
        "--prices", type=Path, metavar="FILE.yaml", help="changes to systems.yaml, key by key: prices, models, new systems"
    )
    command.set_defaults(run=systems)


def add_evaluate(command: argparse.ArgumentParser) -> None:
    """The options of `iadr1 evaluate`."""
    command.add_argument("system", metavar="SYSTEM", help="a name of `iadr1 systems`")
    command.add_argument(
        "--samples", type=Path, nargs="+", required=True, metavar="SAMPLES.jsonl", help="as `dvc repro prepare` writes them"
    )
    command.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="for SYSTEM-SHOTS.jsonl and the replies so far")
    command.add_argument(
        "--shots", type=int, default=0, choices=(0, 1, 2, 4), help="reference images before the query (default: %(default)s)"
    )
    command.add_argument("--limit", type=int, metavar="N", help="only the first N samples of each file")
    command.add_argument("--prices", type=Path, metavar="FILE.yaml", help="changes to systems.yaml, key by key")
    paid = command.add_argument_group("systems behind a network")
    paid.add_argument("--estimate", action="store_true", help="tell what is still to be asked and what it may cost, and stop")
    paid.add_argument("--budget", type=float, metavar="USD", help="what the evaluation may cost in all; a system with a price needs one")
    paid.add_argument("--price", type=float, nargs=2, metavar=("IN", "OUT"), help="USD for a million tokens, instead of the catalogue's")
    paid.add_argument("--concurrency", type=int, default=8, help="requests under way at a time (default: %(default)s)")
    paid.add_argument("--per-minute", type=float, default=math.inf, help="most requests a minute (default: no limit of ours)")
    paid.add_argument("--timeout", type=float, default=120.0, help="seconds until a request counts as lost (default: %(default)s)")
    paid.add_argument("--retries", type=int, default=6, help="how often a request is sent again after a fault (default: %(default)s)")
    here = command.add_argument_group("systems on this machine")
    here.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="the weights")
    here.add_argument("--engine", choices=("transformers", "vllm", "server"), default="transformers", help="default: %(default)s")
    here.add_argument("--batch-size", type=int, default=8, help="of the engine (default: %(default)s)")
    outside = here.add_mutually_exclusive_group()
    outside.add_argument("--command", help="a program that reads request lines and writes answer lines (docs/systems.md)")
    outside.add_argument("--requests", type=Path, metavar="FILE.jsonl", help="write the request lines and stop")
    outside.add_argument("--answers", type=Path, metavar="FILE.jsonl", help="answer lines that the system has written")
    command.set_defaults(run=evaluate)


def systems(options: argparse.Namespace) -> None:
    """List the systems, what each needs, and whether it can be run here and now."""
    import os
    from datetime import UTC, datetime

    from iadr1.systems.catalogue import catalogue, standing

    found, today = catalogue(options.prices), datetime.now(UTC).date()
    rows = [standing(found, name, os.environ, today) for name in found.systems]
    if options.json:
        print(json.dumps([row.to_dict() for row in rows], indent=1, ensure_ascii=False))
    else:
        print("\n".join(_told(rows)))


def _told(rows: "Sequence[Standing]") -> list[str]:
    lines = []
    for row in rows:
        paper = f"{row.paper:5.1f}" if row.paper is not None else "    –"
        lines.append(f"{row.name:27}{paper}  {'ready' if not row.missing else 'needs ' + '; '.join(row.missing)}")
        facts = (
            row.model,
            row.price != "free" and f"USD {row.price} a million tokens in / out",
            row.images,
            f"prompt {row.prompt}",
            row.note,
        )
        lines += ["".ljust(34) + "; ".join(str(fact) for fact in facts if fact), "".ljust(34) + row.command]
    return [*lines, "", "The figure is the paper's mean over the six test sets, 0-shot. A price was that on the day beside it."]


def evaluate(options: argparse.Namespace) -> None:
    """Let one system inspect prepared samples. Run it again after a kill: what was answered is neither asked nor paid again."""
    from iadr1.images import require_readable
    from iadr1.remote.replies import Replies
    from iadr1.report import write_predictions
    from iadr1.samples import read_samples
    from iadr1.systems.catalogue import catalogue
    from iadr1.systems.contract import request_line
    from iadr1.systems.evaluation import Exam

    samples = [sample for path in options.samples for sample in read_samples(path)[: options.limit]]
    if len({sample.id for sample in samples}) < len(samples):
        raise DatasetError("--samples: a sample is there twice. Name each file once.")
    exam = Exam(catalogue(options.prices), options.system, samples, options.shots)
    if options.price:
        exam = replace(exam, catalogue=_priced(exam, options.price))
    require_readable(samples, shots=options.shots)
    _say_fewer_references(exam)
    if options.requests:
        lines = [request_line(sample.id, chat) + "\n" for sample, chat in zip(samples, exam.chats(), strict=True)]
        options.requests.write_text("".join(lines), encoding="utf-8")
        print(f"{options.system}: {len(lines)} requests in {options.requests}.")
        return
    replies = _replies(exam, options, Replies(options.into / "replies" / options.system))
    if replies is None:
        return
    path = options.into / f"{options.system}-{options.shots}.jsonl"
    write_predictions(path, exam.predictions(replies))
    refused = sum(reply.finish == "refusal" for reply in replies)
    print(
        f"{options.system}: {len(replies)} predictions in {path}, {refused} of them refusals, which count as unreadable. See `iadr1 report {path}`."
    )


def _replies(exam: "Exam", options: argparse.Namespace, kept: "Replies") -> "list[Reply] | None":
    """The replies of a system in the way that it is run; None where only the estimate was asked for."""
    from iadr1.systems import evaluation
    from iadr1.systems.contract import read_answers

    if options.answers:
        found = read_answers(options.answers, [sample.id for sample in exam.samples])
        return [found[sample.id] for sample in exam.samples]
    done = _Told(exam.name, len(exam.samples))
    if exam.system.provider == "process":
        if not options.command:
            raise EngineError(f"{exam.name} is a program of its own: give --command, or --requests and later --answers (docs/systems.md).")
        return evaluation.ask_process(exam, exam.questions(options.command), kept, command=options.command, done=done)
    if exam.system.provider == "checkpoint":
        folder = options.checkpoint
        if folder is None or not folder.is_dir():
            raise EngineError(
                f"{exam.name}: {'--checkpoint is missing' if folder is None else f'no folder {folder}'}. `iadr1 systems` tells where from."
            )
        asked = exam.questions(options.engine, evaluation.identity(folder))
        settings = {"checkpoint": folder, "engine": options.engine, "batch_size": options.batch_size}
        return evaluation.ask_checkpoint(exam, asked, kept, **settings, done=done)
    return _remote(exam, options, kept, done)


def _remote(exam: "Exam", options: argparse.Namespace, kept: "Replies", done: "_Told") -> "list[Reply] | None":
    import os
    from datetime import UTC, datetime

    from iadr1.remote.asking import Patience
    from iadr1.remote.pace import Pace
    from iadr1.remote.purse import Purse
    from iadr1.systems import evaluation
    from iadr1.systems.catalogue import missing

    price, asked = exam.catalogue.price(exam.system), exam.questions()
    estimate = evaluation.Estimate.of(asked, kept, exam.system, price)
    print(f"{exam.name}: {_said(estimate, exam)}", flush=True)
    if options.estimate:
        return None
    _afford(exam, estimate, options.budget)
    # With every answer at hand, nothing is needed: no key, and a provider that has ended is no hindrance.
    lacks = missing(exam.catalogue, exam.system, os.environ, datetime.now(UTC).date()) if estimate.questions else []
    if lacks:
        raise EngineError(f"{exam.name} cannot be asked: {'; '.join(lacks)}.")
    return evaluation.ask_remote(
        exam, asked, kept, patience=Patience(options.concurrency, options.retries), pace=Pace(options.per_minute), timeout=options.timeout,
        purse=Purse(price, math.inf if options.budget is None else options.budget), done=done,
    )  # fmt: skip


def _said(estimate: "Estimate", exam: "Exam") -> str:
    known = exam.system.price
    told = f"{estimate.questions} questions to ask, {estimate.kept} answered before; about {estimate.tokens_in} tokens in and {estimate.tokens_out} out"
    if not known:
        return told + "."
    return (
        f"{told}: {estimate.cost:.2f} USD, at most {estimate.most:.2f}, at {known.tokens_in:g} and {known.tokens_out:g} "
        f"a million as of {known.as_of}; {estimate.paid:.2f} paid before."
    )


def _afford(exam: "Exam", estimate: "Estimate", budget: float | None) -> None:
    if not estimate.questions or not exam.system.price:
        return
    if budget is None:
        raise EngineError(f"{exam.name} costs money: give --budget, in USD.")
    if estimate.paid + estimate.cost > budget:
        raise EngineError(
            f"{exam.name}: about {estimate.cost:.2f} USD on top of {estimate.paid:.2f} is more than the budget of {budget:.2f}. "
            "Raise --budget, or ask about fewer samples with --limit."
        )


def _priced(exam: "Exam", price: Sequence[float]) -> "Catalogue":
    from datetime import UTC, datetime

    from iadr1.systems.catalogue import Priced

    if min(price) < 0:
        raise ParamsError(f"--price {price[0]:g} {price[1]:g}: a price is 0 or more.")
    now = Priced(tokens_in=price[0], tokens_out=price[1], as_of=datetime.now(UTC).date(), source="--price")
    system = exam.system.model_copy(update={"price": now})
    return exam.catalogue.model_copy(update={"systems": {**exam.catalogue.systems, exam.name: system}})


def _say_fewer_references(exam: "Exam") -> None:
    fewer = sum(len(sample.references) < exam.shots for sample in exam.samples)
    if fewer:
        print(
            f"{fewer} of {len(exam.samples)} samples have fewer than {exam.shots} reference images; they are shown what there is",
            file=sys.stderr,
        )


class _Told:
    """Tells how far a run is, about twenty times."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total, self.done, self.said = name, total, 0, 0

    def __call__(self, count: int) -> None:
        self.done += count
        if count and (self.done - self.said >= self.total / 20 or self.done == self.total):
            self.said = self.done
            print(f"{self.name}: {self.done} of {self.total} answered", file=sys.stderr, flush=True)
