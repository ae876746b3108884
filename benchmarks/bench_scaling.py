"""Whether a training step takes what the planning table says: seconds in proportion to 6 operations a parameter and token.

Run with `python -m benchmarks.bench_scaling`. One step (forward, backward) of language models of several widths and depths over texts of several
lengths, interleaved; the operations a second of a core should stay about the same. Where they rise with the width, small matrices are slow.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.bench_train import alone, range_of
from iadr1.report_tables import table
from tests.tiny import build

ROWS = 4


def main() -> None:
    """Print one row a size and length."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_scaling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="two sizes and lengths: whether it runs")
    options = parser.parse_args()
    sys.modules.setdefault("vllm", None)  # type: ignore[arg-type]
    sizes, lengths = ([(64, 2), (128, 2)], [32, 64]) if options.tiny else ([(256, 2), (256, 4), (512, 4)], [128, 256, 512])
    with tempfile.TemporaryDirectory() as folder:
        cells = [alone(_measured, Path(folder, f"{width}-{depth}"), width, depth, lengths, options.rounds) for width, depth in sizes]
    sys.stdout.write(f"\n{markdown(list(itertools.chain(*cells)))}")


Cell = tuple[int, int, float, int, list[float]]


def _measured(folder: Path, width: int, depth: int, lengths: Sequence[int], rounds: int) -> list[Cell]:
    """Seconds of a core for a step at each length: width, depth, parameters, length, seconds."""
    import torch

    from iadr1 import backbones

    build(folder, width=width, depth=depth)
    network = backbones.load_model(folder).train()
    computed = sum(parameter.numel() for name, parameter in network.named_parameters() if "language_model" in name)
    found: dict[int, list[float]] = {length: [] for length in lengths}
    for number, length in itertools.product(range(-1, rounds), lengths):
        ids = torch.full((ROWS, length), 20)
        start = time.process_time()
        network(input_ids=ids, labels=ids).loss.backward()
        # The first of each length allocates.
        found[length] += [time.process_time() - start] * (number >= 0)
        network.zero_grad()
    return [(width, depth, float(computed), length, seconds) for length, seconds in found.items()]


def markdown(cells: Sequence[Cell]) -> str:
    """Each measurement beside what the smallest one predicts for it."""
    _, _, parameters, tokens, seconds = cells[0]
    unit = median(seconds) / (parameters * tokens)
    rows = []
    for width, depth, count, length, times in cells:
        speed, ratio = 6 * count * ROWS * length / median(times) / 1e9, median(times) / (unit * count * length)
        told = [str(width), str(depth), f"{count / 1e6:.2f} M", str(length), range_of([1000 * value for value in times], ".0f")]
        rows.append([*told, f"{speed:.1f}", f"{ratio:.2f}"])
    return table(["width", "layers", "parameters", "tokens", "ms of a core", "10^9 operations a second", "measured over predicted"], rows)


if __name__ == "__main__":
    main()
