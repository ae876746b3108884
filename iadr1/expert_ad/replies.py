"""Every raw reply of a teacher, kept by the hash of its request: what was answered once is never asked, or paid, again."""

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from iadr1.expert_ad.teachers import Reply, Request, Teacher
from iadr1.remote.replies import write_whole

Item = TypeVar("Item")
Result = TypeVar("Result")


class Kept:
    """A teacher whose replies are kept in a folder, one file each, written whole or not at all; safe to call from many threads."""

    def __init__(self, teacher: Teacher, folder: Path) -> None:
        self.teacher, self.folder = teacher, folder
        self.asked: list[Reply] = []  # what was not in the folder: the replies that this run has paid for
        self._one_at_a_time: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._guard = threading.Lock()

    def key(self, request: Request) -> str:
        """The key of the teacher."""
        return self.teacher.key(request)

    @property
    def needs_reference(self) -> bool:
        """As the teacher."""
        return self.teacher.needs_reference

    def expected(self, request: Request) -> tuple[int, int]:
        """As the teacher."""
        return self.teacher.expected(request)

    def __call__(self, request: Request) -> Reply:
        """The kept reply, or a new one, kept before it is handed on."""
        key = self.key(request)
        with self._guard:
            lock = self._one_at_a_time[key]
        with lock:  # two rows may ask the same: the second waits for the reply of the first
            found = self.kept(key)
            return found if found is not None else self._new(key, request)

    def kept(self, key: str) -> Reply | None:
        """The reply to a request that was answered before, None for a new one."""
        try:
            return Reply(**json.loads(self._file(key).read_text(encoding="utf-8")))
        except (FileNotFoundError, json.JSONDecodeError, TypeError):  # a damaged file is no reply
            return None

    def _new(self, key: str, request: Request) -> Reply:
        reply = self.teacher(request)
        if reply.refused:  # costs nothing, and may be answered another day
            return reply
        write_whole(self._file(key), json.dumps(asdict(reply), ensure_ascii=False), durable=reply.tokens_out > 0)
        self.asked.append(reply)
        return reply

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def in_threads(concurrency: int, teacher: Kept) -> Callable[[Callable[[Item], Result], Sequence[Item]], Iterator[Result]]:
    """A mapper that works on so many items at a time; an error ends it after the requests under way are answered and kept."""

    def mapped(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """The results in the order of the items."""
        with ThreadPoolExecutor(concurrency) as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                for done, future in enumerate(futures, 1):
                    yield future.result()
                    if done % max(50, len(items) // 20) == 0:
                        print(f"expert-ad: {done} of {len(items)} pairs described, {len(teacher.asked)} replies new", flush=True)
            finally:
                pool.shutdown(cancel_futures=True)

    return mapped
