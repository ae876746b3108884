"""Many questions to one remote model: so many at a time, with patience, within a budget, every reply kept as it arrives."""

import asyncio
import queue
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from iadr1.engines import Chat
from iadr1.errors import EngineError, Iadr1Error
from iadr1.remote.pace import LONGEST_WAIT, Pace
from iadr1.remote.purse import Purse
from iadr1.remote.replies import Fault, Replies, Reply


class Client(Protocol):
    """Speaks one protocol: an answer, or a fault that passes; raises EngineError where going on makes no sense."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *error: object) -> None: ...

    async def ask(self, chat: Chat, key: str) -> Reply | Fault: ...


@dataclass(frozen=True, slots=True)
class Question:
    """A chat, the hash of all that its answer depends on, and the tokens that it takes and at most may be answered with."""

    chat: Chat
    key: str
    tokens_in: int = 0
    most_out: int = 0


@dataclass(frozen=True, slots=True)
class Patience:
    """How many requests at a time, how often each is sent again, and the seconds before the first time."""

    concurrency: int = 8
    retries: int = 6
    first_wait: float = 1.0


@dataclass(slots=True)
class Asker:
    """Asks a client; equal questions are asked once. Without `replies` nothing is kept, as for a server of one's own."""

    client: Client
    who: str
    patience: Patience = field(default_factory=Patience)
    pace: Pace = field(default_factory=Pace)
    replies: Replies | None = None
    purse: Purse = field(default_factory=Purse)
    _stopped: Iadr1Error | None = None
    _halt: asyncio.Event = field(default_factory=asyncio.Event)
    _settled: asyncio.Event = field(default_factory=asyncio.Event)
    _under_way: int = 0
    _no_more: bool = False

    def __call__(self, questions: Sequence[Question], done: Callable[[int], object]) -> list[Reply]:
        """The replies, in the order of the questions; `done` is told how many more are answered whenever some are."""
        found = {question.key: reply for question in questions if (reply := self._kept(question.key)) is not None}
        times = Counter(question.key for question in questions)
        done(sum(times[key] for key in found))
        unique = {question.key: question for question in questions}
        # A budget is for an evaluation, however often it is begun.
        self.purse.spent += sum(self.purse.cost(reply, unique[key].tokens_in) for key, reply in found.items())

        def answered(key: str, reply: Reply) -> None:
            found[key] = reply
            done(times[key])

        waiting = [question for key, question in unique.items() if key not in found]
        if waiting:
            asyncio.run(self._all(waiting, answered))
        if self._stopped:
            raise self._stopped
        return [found[question.key] for question in questions]

    def stream(self, questions: Iterable[Question]) -> Iterator[tuple[str, Reply]]:
        """Key and reply of each question as they come; a question is taken from the iterable when it is its turn."""
        come: queue.SimpleQueue[tuple[str, Reply] | None] = queue.SimpleQueue()
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(lambda: asyncio.run(self._all(questions, lambda key, reply: come.put((key, reply)))))
            run.add_done_callback(lambda _: come.put(None))
            try:
                yield from iter(come.get, None)
            finally:
                self._no_more = True  # where nobody listens any longer, what is under way is the last
            run.result()
        if self._stopped:
            raise self._stopped

    def _kept(self, key: str) -> Reply | None:
        return self.replies.kept(key) if self.replies else None

    async def _all(self, questions: Iterable[Question], answered: Callable[[str, Reply], object]) -> None:
        self._halt, self._settled = asyncio.Event(), asyncio.Event()
        shared = iter(questions)
        with self._stopping_on_signals():
            async with self.client:
                await asyncio.gather(*(self._worker(shared, answered) for _ in range(self.patience.concurrency)))

    async def _worker(self, questions: Iterator[Question], answered: Callable[[str, Reply], object]) -> None:
        for question in questions:
            if self._stopped or self._no_more or not await self._affordable(question):
                return
            reply = None
            try:
                reply = await self._answer(question)
            except Iadr1Error as error:
                self.stop(error)
            finally:
                self._under_way -= 1
                self.purse.settle(question.tokens_in, question.most_out, reply)
                self._settled.set()
            if reply is not None:
                if self.replies:
                    self.replies.keep(question.key, reply)
                answered(question.key, reply)

    async def _affordable(self, question: Question) -> bool:
        """Reserve the money for a request, if need be once others have been paid for."""
        while not self.purse.reserve(question.tokens_in, question.most_out):
            if self._stopped:
                return False
            if not self._under_way:
                self.stop(EngineError(
                    f"{self.who}: {self.purse.spent:.2f} of the budget of {self.purse.budget:.2f} is spent, and one more request may cost too much. "
                    "What was answered is kept: run the same command with a larger budget to go on."
                ))  # fmt: skip
                return False
            self._settled.clear()
            await self._settled.wait()
        self._under_way += 1
        return True

    async def _answer(self, question: Question) -> Reply:
        """The reply, after as many tries as it takes."""
        problem = ""
        for attempt in range(self.patience.retries + 1):
            await self._sleep(self.pace.turn())
            started = time.monotonic()
            outcome = await self.client.ask(question.chat, question.key)
            if isinstance(outcome, Reply):
                return replace(outcome, seconds=round(time.monotonic() - started, 3))
            problem = outcome.problem
            if attempt < self.patience.retries:
                await self._back_off(attempt, outcome.wait)
        raise EngineError(
            f"{self.who}: no answer after {self.patience.retries + 1} tries, the last with {problem}. "
            "What was answered is kept: run the same command again when it is well."
        )

    async def _back_off(self, attempt: int, asked: float | None) -> None:
        # Jitter: many requests that failed together do not come back together.
        if asked is None:
            await self._sleep(random.uniform(0, min(LONGEST_WAIT, self.patience.first_wait * 2**attempt)))
        else:
            self.pace.pause(asked)
            await self._sleep(random.uniform(0, min(1.0, self.patience.first_wait)))

    async def _sleep(self, seconds: float) -> None:
        """Wait, but not once the run has ended."""
        if self._stopped:
            raise self._stopped
        if seconds > 0:
            try:
                await asyncio.wait_for(self._halt.wait(), seconds)
            except TimeoutError:
                return
            raise self._stopped or EngineError("stopped")

    def stop(self, error: Iadr1Error) -> None:
        """End the run with `error` once the requests under way are answered and kept."""
        self._stopped = self._stopped or error
        self._halt.set()
        self._settled.set()

    @contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        """The first Ctrl+C lets the requests under way be answered and kept; the second ends at once."""
        if self.replies is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGINT)

        def interrupted() -> None:
            self.stop(EngineError(f"{self.who}: interrupted. What was answered is kept: run the same command again to go on."))
            loop.remove_signal_handler(signal.SIGINT)

        loop.add_signal_handler(signal.SIGINT, interrupted)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)
