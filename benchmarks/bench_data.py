"""How fast data is listed, hashed and validated as it grows: seconds and peak memory. Run `python benchmarks/bench_data.py [COUNT ...]`.

Each step runs in a process of its own on made-up samples: a listing opens nothing, hashing reads every byte, validating decodes every image
and mask, looks for leaks between training and test, lets Great Expectations judge all of it and writes its pages.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COUNTS = (10_000, 100_000)
SIDE = 32


def make(root: Path, count: int) -> None:
    """A data set in MVTec layout of `count` images of noise, no two alike, a fifth of them defects that share a mask."""
    import numpy as np
    from PIL import Image

    noise, kinds = np.random.default_rng(0), ("train/good", "train/good", "train/good", "test/good", "test/hole")
    for category, kind in itertools.product(range(10), (*kinds, "ground_truth/hole")):
        (root / "set" / f"part{category}" / kind).mkdir(parents=True, exist_ok=True)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[8:16, 8:16] = 255
    Image.fromarray(mask).save(root / "mask.png")
    for number in range(count):
        place, kind = root / "set" / f"part{number // 5 % 10}", kinds[number % 5]
        pixels = noise.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(place / kind / f"{number:06}.png", compress_level=1)
        if kind == "test/hole":
            _link(root / "mask.png", place / "ground_truth/hole" / f"{number:06}_mask.png")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system allows only so many names for one file
        beside = source.with_name(f".{source.name}")
        shutil.copyfile(source, beside)
        beside.replace(source)
        os.link(source, target)


def list_(root: Path) -> int:
    """List the samples."""
    from iadr1.datasets import samples_of

    return len(samples_of("mvtec", root / "set", "set"))


def hash_(root: Path) -> int:
    """Hash every image file, as `fetch` does for its manifest."""
    from iadr1.datasets import samples_of
    from tasks._manifest import hashed
    from tasks._parallel import each

    paths = [Path(sample.images[-1]) for sample in samples_of("mvtec", root / "set", "set")]
    return len(list(each(hashed, paths, doing="hashing", waits=True)))


def validate(root: Path) -> int:
    """Judge the training images and the test images as the stage does."""
    from iadr1.datasets import samples_of, split_of
    from iadr1.params import Validate
    from tasks._tables import tables
    from tasks.validate import findings_of

    samples = samples_of("mvtec", root / "set", "set")
    parts = {
        name: [sample for sample in samples if split_of(sample) == split] for name, split in (("sc_grpo", "train"), ("test/set", "test"))
    }
    judged = tables(parts, grid=3, layouts={})
    findings = findings_of(judged, Validate(minimum_rows=1, minimum_minority_share=0.0), chains=True, pages=root / "data_docs")
    assert not findings, findings
    return sum(map(len, judged.values()))


STEPS = {"list": list_, "hash": hash_, "validate": validate}


def measure(step: str, root: Path) -> None:
    """Print what one step took."""
    start, before = time.perf_counter(), os.times()
    count = STEPS[step](root)
    seconds, after = time.perf_counter() - start, os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    print(f"{step:9}{count:9,} samples {seconds:8.1f} s, {cpu:8.1f} s of cores, {1e6 * cpu / count:7.0f} us a sample, peak {peak:6,.0f} MB")


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", type=int, nargs="*", default=COUNTS)
    parser.add_argument("--measure", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], Path(options.measure[1]))
        return
    for count in options.counts:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), count)
            for step in STEPS:
                subprocess.run([sys.executable, __file__, "--measure", step, folder], check=True)


if __name__ == "__main__":
    main()
