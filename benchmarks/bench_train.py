"""Samples a second and memory of PA-SFT and SC-GRPO beside TRL's trainers and the published recipe's batches, and where a step's time goes.

Run with `python -m benchmarks.bench_train`. Every arm trains the same model on the same rows, in a process of its own, one after the other,
again and again: what others do on the machine then meets all of them. Ratios are those of a round, shown as median and range.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.arms import Arm, Meter, Work, own_pa_sft, pa_sft_arms, sc_grpo_arms
from iadr1.report_tables import table
from iadr1.samples import Sample
from tests.tiny import build, tiny_samples

THOUGHT = {
    True: "The plate has an even grain of grey. In one of its corners a dark square with sharp edges interrupts that grain. This is a defect.",
    False: "The plate has an even grain of grey. It runs without a break from one corner to the other, and no place stands out from it.",
}
STAGES: dict[str, Callable[[Work], list[Arm]]] = {"pa_sft": pa_sft_arms, "sc_grpo": sc_grpo_arms}
SIDE = 64
Row = dict[str, Any]


def main() -> None:
    """Print the tables, and write all figures where `--json` says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_train", description=__doc__)
    parser.add_argument("stages", nargs="*", default=[*STAGES], help=f"of {', '.join(STAGES)}")
    parser.add_argument("--rounds", type=int, default=5, help="how often every arm is measured (default %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a smaller model on few rows: whether everything runs, not how fast")
    parser.add_argument("--json", type=Path, help="where to write every measurement")
    options = parser.parse_args()
    # TRL imports vLLM wherever it is installed, which takes 10 s and is for nothing here.
    sys.modules.setdefault("vllm", None)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        work = _work(Path(folder), tiny=options.tiny)
        found = {}
        for stage in options.stages:
            given = _taught(work) if stage == "sc_grpo" else work
            found[stage] = measure(STAGES[stage](given), given, rounds=options.rounds)
    for stage, rows in found.items():
        sys.stdout.write(f"\n{markdown(stage, rows)}")
    if options.json:
        told = {"threads": os.environ.get("OMP_NUM_THREADS"), "load": os.getloadavg(), "measured": found}
        options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _work(folder: Path, *, tiny: bool) -> Work:
    """The small backbone and 64 pictures of 64 x 64 pixels."""
    (folder / "images").mkdir()
    samples = [wordy(sample) for sample in tiny_samples(folder / "images", 8 if tiny else 64, side=SIDE)]
    if tiny:
        alone(_build_tiny, folder / "tiny")
        return Work(folder / "tiny", samples, folder, SIDE * SIDE, epochs=1, batch=8, steps=1, completions=24, tokens=4)
    return Work(Path("backbones/small"), samples, folder, SIDE * SIDE, epochs=4, batch=32, steps=2, completions=96, tokens=96)


def _build_tiny(folder: Path) -> None:
    build(folder, max_pixels=SIDE * SIDE)


def _taught(work: Work) -> Work:
    """The same with a model that was taught for half a minute: its completions are about as long as chains, if seldom in the form."""
    alone(measured, Arm("teaching", own_pa_sft), replace(work, epochs=work.epochs**2, keys={"learning_rate": 2e-3}))
    return replace(work, model=work.folder / "pa_sft" / "model")


def wordy(sample: Sample) -> Sample:
    """The sample with a chain of the length that the stages' have."""
    return replace(sample, reasoning=THOUGHT[sample.anomalous is True])


def measure(arms: Sequence[Arm], work: Work, *, rounds: int) -> list[Row]:
    """One row an arm and round, arms interleaved."""
    found = []
    for number in range(rounds):
        # The other way round every second time: what slows down within a round then meets both ends of it.
        for arm in arms if number % 2 == 0 else reversed(arms):
            row = {"round": number, "arm": arm.name, **alone(measured, arm, work)}
            found.append(row)
            sys.stderr.write(f"{json.dumps(row)}\n")
    return found


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, called in a forked process: libraries are imported once, and memory is that of the call.

    Nothing may compute in this process: the threads of OpenMP and CUDA's context do not survive a fork.
    """
    _import()
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    child = fork.Process(target=_send, args=(there, function, *arguments))
    child.start()
    there.close()
    try:
        return here.recv()
    except EOFError as error:
        raise SystemExit(f"{function.__name__} failed; see above.") from error
    finally:
        child.join()


def _send(pipe: Any, function: Callable[..., Any], *arguments: Any) -> None:
    pipe.send(function(*arguments))


def _import() -> None:
    import datasets  # noqa: F401
    import torch  # noqa: F401
    import trl.trainer.grpo_trainer
    import trl.trainer.sft_trainer  # noqa: F401


def measured(arm: Arm, work: Work) -> Row:
    """What the arm takes."""
    from tasks._training import quiet_libraries

    quiet_libraries()
    gc.collect()
    meter = Meter()
    told = arm.train(work, meter, **arm.options)
    return {**asdict(meter), **told}


def markdown(stage: str, rows: Sequence[Row]) -> str:
    """The figures of a stage, one row an arm, and for SC-GRPO the shares of a step."""
    names = list(dict.fromkeys(row["arm"] for row in rows if row["round"] == 0))
    arms = {name: sorted((row for row in rows if row["arm"] == name), key=lambda row: row["round"]) for name in names}
    header = ["", *HEADER]
    found = [f"{stage} ({len(arms[names[0]])} rounds)\n\n", table(header, [[name, *_cells(arms[name], arms[names[0]])] for name in names])]
    if any(row["parts"] for row in rows):
        found += ["\n", table(["of a step's time", *PARTS], [[name, *part_shares(arms[name], clock="processor")] for name in names])]
    return "".join(found)


HEADER = ["samples/s", "samples a second of a core", "iadr1's rate over this", "memory above the start, MiB"]
PARTS = ["rollout", "reward", "learner", "everything else"]


def _cells(rows: Sequence[Row], ours: Sequence[Row]) -> list[str]:
    rates = [range_of([row["samples"] / row[clock] for row in rows], ".1f") for clock in ("wall", "processor")]
    ratios = range_of(
        [(own["samples"] / own["processor"]) / (row["samples"] / row["processor"]) for own, row in zip(ours, rows, strict=True)], ".2f"
    )
    return [*rates, ratios, range_of([(row["peak_bytes"] - row["start_bytes"]) / 2**20 for row in rows], ".0f")]


def part_shares(rows: Sequence[Row], *, clock: str) -> list[str]:
    """The shares of a step's time in percent: those of a GPU by its clock, of a processor by its own seconds."""
    spent = [{**row["parts"], PARTS[-1]: row[clock] - sum(row["parts"].values())} for row in rows]
    return [range_of([100 * parts[name] / row[clock] for parts, row in zip(spent, rows, strict=True)], ".2f") + " %" for name in PARTS]


def range_of(values: Sequence[float], form: str) -> str:
    """Median, least and most."""
    return f"{median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


if __name__ == "__main__":
    main()
