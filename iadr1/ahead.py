"""Work done by threads ahead of who needs it, never more than a few items of it: a million images are not held at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(work: Callable[[Item], Result], items: Iterable[Item], *, workers: int, most: int) -> Iterator[tuple[Item, Result]]:
    """Every item with the result of `work` on it, in order, while up to `most` further ones are begun; an error comes when its item's turn does."""
    begun: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                begun.append((item, pool.submit(work, item)))
                if len(begun) > most:
                    yield _next(begun)
            while begun:
                yield _next(begun)
        finally:
            for _, result in begun:
                result.cancel()


def _next(begun: deque[tuple[Item, Future[Result]]]) -> tuple[Item, Result]:
    item, result = begun.popleft()
    return item, result.result()
