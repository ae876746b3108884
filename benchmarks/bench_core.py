"""How fast the inspection core is: start-up, runaway texts, scoring and reports. Run `python benchmarks/bench_core.py [--share 10]`."""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from iadr1.report import EvalReport, Prediction
from iadr1.rewards import PRESETS, scores
from iadr1.samples import Sample
from iadr1.verdict import Verdict

PLACES = [
    f"{row} {column}".replace("center center", "center") for row in ("top", "center", "bottom") for column in ("left", "center", "right")
]
SAID_PLACES = [*PLACES, "upper left", "near the left edge", "lower right corner", "top left, top center", "middle", "unknown"]
KINDS = ["scratch", "hole", "stain", "dent", "crack", "pit", "chip", "debris", "wear mark", "breakage"]
SAID_KINDS = [*KINDS, "scratches", "surface damage", "fracture", "scrach", "contamination", "defect", "bent lead"]
SENTENCES = [
    "I compare the regular texture of the part with what is usual for it",
    "the outline is straight and both corners are where they belong",
    "the brightness changes evenly from one side to the other",
    "a narrow darker region interrupts the pattern of the surface",
    "its border is sharp, unlike the soft shadow next to it",
    "the remaining area keeps the same grain and colour",
    "nothing of the kind is visible on the opposite side",
]


def completion(rng: random.Random) -> str:
    """A completion as a trained model writes it: 60 to 100 words, one in twenty with a broken form, no two alike."""
    anomalous = rng.random() < 0.5
    think = ". ".join(rng.choices(SENTENCES, k=rng.randint(5, 8))) + f" ({rng.random():.6f})."
    if not anomalous:
        text = f"<think>{think} There is no defect.</think><answer>No</answer>"
    else:
        evidence = f"<location>{rng.choice(SAID_PLACES)}</location><type>{rng.choice(SAID_KINDS)}</type>"
        text = f"<think>{think} This is a defect.</think>{evidence}<answer>Yes</answer>"
    return text[: rng.randint(20, len(text))] if rng.random() < 0.05 else text


def sample(rng: random.Random, number: int) -> Sample:
    """An annotated sample."""
    anomalous = rng.random() < 0.5
    place, kind = (rng.choice(PLACES), rng.choice(KINDS)) if anomalous else (None, None)
    return Sample(f"s{number}", "made", "part", ("image.png",), anomalous, place, kind)


def bench_scoring(count: int) -> None:
    """Completions a second on one core, in a batch and in one twice as large."""
    rng = random.Random(0)
    completions = [completion(rng) for _ in range(2 * count)]
    samples = [sample(rng, number // 4) for number in range(2 * count)]
    length = sum(map(len, completions)) / len(completions)
    for preset in PRESETS:
        once = _seconds(partial(scores, completions[:count], samples[:count], preset=preset))
        twice = _seconds(partial(scores, completions, samples, preset=preset))
        print(f"score {preset:9}{count / once:10,.0f}/s, twice as many {2 * count / twice:10,.0f}/s ({length:.0f} characters a completion)")


def bench_runaway() -> None:
    """Milliseconds for a megabyte of the worst texts."""
    pieces = ["No</answer>", "<", "<think>", "<answer>No</answer>", "yes no ", "a ", "<th"]
    slowest = max((_seconds(partial(Verdict.parse, text)), text[:20]) for text in (piece * (1_000_000 // len(piece)) for piece in pieces))
    print(f"parse 1 MB of a runaway: at most {1000 * slowest[0]:.1f} ms ({slowest[1]!r}…)")


def predictions(count: int, texts: list[str]) -> Iterator[Prediction]:
    """Predictions on six datasets of ten classes by two models."""
    rng = random.Random(1)
    for number in range(count):
        known = sample(rng, number)
        yield Prediction(
            sample_id=f"{number // 2:08d}", dataset=f"set{number // 2 % 6}", category=f"class{number // 12 % 10}", model=f"model{number % 2}",
            anomalous=known.anomalous, text=texts[number % len(texts)], tokens=80, visibility=rng.random(), location=known.location, type=known.type,
        )  # fmt: skip


def bench_report(count: int) -> None:
    """Seconds and memory of a report with 1,000 bootstrap rounds."""
    rng = random.Random(2)
    texts = [completion(rng) for _ in range(20_000)]
    seconds = _seconds(lambda: EvalReport.of(predictions(count, texts)).to_json(), times=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"report over {count:,} predictions, 1,000 rounds: {seconds:.1f} s with making them, peak memory of the process {peak:,.0f} MB")


def bench_start() -> None:
    """Seconds from the shell to the help text and to a score."""
    for arguments in (["--help"], ["explain", "<think>a</think><answer>No</answer>"]):
        command = [sys.executable, "-m", "iadr1.cli", *arguments]
        run = partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
        fastest = _seconds(run, times=5, clock=time.perf_counter)
        print(f"iadr1 {arguments[0]}: {fastest:.2f} s")


def _seconds(action: Callable[[], object], *, times: int = 3, clock: Callable[[], float] = time.process_time) -> float:
    """The fastest of several runs, in seconds of this process's core: other work on the machine does not count."""
    found = []
    for _ in range(times):
        start = clock()
        action()
        found.append(clock() - start)
    return min(found)


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=int, default=1, metavar="N", help="an N-th of the sizes")
    share = parser.parse_args().share
    bench_start()
    bench_runaway()
    bench_scoring(100_000 // share)
    bench_report(1_000_000 // share)


if __name__ == "__main__":
    main()
