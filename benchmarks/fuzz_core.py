"""Feeds the parser and the rewards random and mutated texts, and looks for a crash or for time that grows faster than the text.

Run `python benchmarks/fuzz_core.py --minutes 5`; it prints what it did, and exits with 1 and the text on a find.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from iadr1.agreement import conclusion
from iadr1.defect_types import type_score
from iadr1.locations import cells
from iadr1.rewards import PRESETS, score
from iadr1.samples import Sample
from iadr1.verdict import TAGS, Verdict

SAMPLES = [
    Sample("n", "made", "plate", ("n.png",), False),
    Sample("s", "made", "plate", ("s.png",), True, "top left, center", "scratch"),
    Sample("b", "made", "plate", ("b.png",), True),
]
WORDS = (
    "yes no not top left right center everywhere except and , . scratch hole defect normal free A B < > / \n \t İ ß ’ 😀 \x00 \ud800".split(
        " "
    )
)
PIECES = [f"<{slash}{tag}>" for tag in TAGS for slash in ("", "/")] + WORDS
GOLD = "<think>A line. This is a scratch.</think><location>top left</location><type>scratch</type><answer>Yes</answer>"

# Twenty times the text may take twenty times as long, with room for a slow moment.
GROWTH = 20
ALLOWED = 4.0
LEAST_SECONDS = 0.02


def random_text(rng: random.Random) -> str:
    """Tags and words at random, or a gold answer with a few cuts, repeats and insertions."""
    if rng.random() < 0.5:
        return rng.choice(("", " ")).join(rng.choices(PIECES, k=rng.randint(0, 40)))
    text = GOLD
    for _ in range(rng.randint(1, 6)):
        at, length = rng.randint(0, len(text)), rng.randint(0, 12)
        text = text[:at] + rng.choice(("", rng.choice(PIECES), text[at : at + length] * 2)) + text[at + length :]
    return text


def check(text: str) -> None:
    """Everything that reads the text, with what must always hold."""
    for verdict in (Verdict.parse(text), Verdict.parse(text, truncated=True), Verdict.read(text)):
        assert (verdict.anomalous is None) == (verdict.status in ("ambiguous", "truncated", "unreadable")), verdict
    verdict = Verdict.parse(text)
    if verdict.status == "ok":
        assert Verdict.parse(verdict.render()) == verdict, verdict
    for preset, sample in ((preset, sample) for preset in PRESETS for sample in SAMPLES):
        found = score(text, sample, preset=preset)
        assert all(value is None or 0.0 <= value <= 1.0 for value in found[:4]), found
    assert 0.0 <= type_score(text, "scratch") <= 1.0
    conclusion(text)
    cells(text, 3)


def check_growth(piece: str) -> None:
    """A long runaway of a piece takes about as many times longer as it is longer."""
    short = piece * max(1, 50_000 // max(1, len(piece)))
    for name, action in (
        ("parse", Verdict.parse),
        ("read", Verdict.read),
        ("score", lambda text: score(text, SAMPLES[1], preset="released")),
    ):
        one, many = _seconds(action, short), _seconds(action, short * GROWTH)
        assert many < LEAST_SECONDS or many < ALLOWED * GROWTH * one, f"{name}: {one:.4f} s, {GROWTH} times the text {many:.4f} s"


def _seconds(action, text: str) -> float:  # type: ignore[no-untyped-def]
    fastest = float("inf")
    for _ in range(2):
        start = time.process_time()
        action(text)
        fastest = min(fastest, time.process_time() - start)
    return fastest


def main() -> int:
    """Fuzz for some minutes from a seed that is printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, end, texts, runaways = random.Random(options.seed), time.monotonic() + 60 * options.minutes, 0, 0
    while time.monotonic() < end:
        text = random_text(rng)
        grow = texts % 500 == 0
        try:
            check(text)
            if grow:
                check_growth(text[: rng.randint(1, 60)] or " ")
        except Exception as error:  # noqa: BLE001 - finding any exception is the purpose
            print(f"seed {options.seed}, text {texts}: {type(error).__name__}: {error}\n{text!r}")
            return 1
        texts, runaways = texts + 1, runaways + grow
    print(f"seed {options.seed}: {texts:,} texts and {runaways:,} runaways of 1 MB in {options.minutes:g} minutes, no find")
    return 0


if __name__ == "__main__":
    sys.exit(main())
