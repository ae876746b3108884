"""Work on many files at once, with a progress bar."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")
FEW = 200  # below this, starting processes takes longer than the work


def each(work: Callable[[Item], Result], items: Sequence[Item], *, doing: str, waits: bool = False) -> Iterator[Result]:
    """The result of `work` on every item, in order: many items are shared by processes, or by threads where the work `waits` for files."""
    if len(items) < FEW or cores() == 1:
        yield from _progress(map(work, items), total=len(items), doing=doing)
        return
    with _workers(threads=waits) as pool:
        chunk = max(1, min(64, len(items) // (4 * cores())))
        yield from _progress(pool.map(work, items, chunksize=chunk), total=len(items), doing=doing)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _workers(*, threads: bool) -> Executor:
    if threads:
        return ThreadPoolExecutor(4 * cores())
    # Spawned, not forked: the parent may hold threads (of a tracking client, of a log) whose locks a fork would leave closed.
    return ProcessPoolExecutor(cores(), mp_context=get_context("spawn"))


def _progress(results: Iterable[Result], *, total: int, doing: str) -> Iterable[Result]:
    # Rarely where nobody watches it move: every step is a line of the log there.
    return tqdm(results, total=total, desc=doing, unit=" images", mininterval=0.5 if sys.stderr.isatty() else 5.0)
