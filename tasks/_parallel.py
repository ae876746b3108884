"""Work on many files at once, with a progress bar."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")
FEW = 200  # below this, starting processes takes longer than the work


def each(work: Callable[[Item], Result], items: Sequence[Item], *, doing: str) -> list[Result]:
    """The result of `work` on every item, in order: by one process a core when there are many items."""
    if len(items) < FEW or cores() == 1:
        return list(progress(map(work, items), total=len(items), doing=doing))
    # Spawned, not forked: the parent may hold threads (a tracking client's, a log's) that a fork would leave locked.
    with ProcessPoolExecutor(cores(), mp_context=get_context("spawn")) as pool:
        return list(progress(pool.map(work, items, chunksize=max(1, min(64, len(items) // (4 * cores())))), total=len(items), doing=doing))


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def progress(items: Iterable[Item], *, total: int, doing: str, unit: str = "image") -> Iterable[Item]:
    """The items, with a bar that shows rate and remaining time; in a log that is not a terminal it moves rarely."""
    return tqdm(items, total=total, desc=doing, unit=f" {unit}s", mininterval=0.5 if sys.stderr.isatty() else 5.0, file=sys.stderr)
