"""Asks models about samples: each model loaded once for all that it is asked, every answer kept as it comes, the work shared by processes.

One process for each GPU that is visible, or $IADR1_PROCESSES; a process is this stage's own command with $IADR1_SHARE, and a GPU of its own.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from iadr1.engines import ENGINES, PART, Chat, Engine, Generated
from iadr1.errors import ModelError, ParamsError, Stopped
from iadr1.multiple_choice import Choice, Question, letter_of
from iadr1.params import Params
from iadr1.protocols import PROTOCOLS, Protocol, shown_name
from iadr1.report import Prediction
from iadr1.samples import Sample
from tasks._answers import FORM, Answers
from tasks._run import Workspace
from tasks._training import fingerprint, quiet_libraries

SHARE, PROCESSES = "IADR1_SHARE", "IADR1_PROCESSES"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to evaluate: where it is, and whether it is asked as a base model, or for the form of an answer that it was never shown."""

    name: str
    folder: Path
    base: bool
    form: bool = False

    @property
    def untaught(self) -> bool:
        """Whether no chain of thought has taught it how to answer, so that it is read freely."""
        return self.base or self.form


@dataclass(frozen=True, slots=True)
class Share:
    """Which of the samples a process asks about, in blocks: with as many as batches are made of, those are the same for any number of processes."""

    rank: int = 0
    of: int = 1
    block: int = PART

    @classmethod
    def told(cls, params: Params) -> "Share | None":
        """The share that $IADR1_SHARE names, such as 0/2; None where this process is the stage itself."""
        rank, _, of = os.environ.get(SHARE, "").partition("/")
        return cls(int(rank), int(of), PART if params.evaluate.engine == "transformers" else 1) if of else None

    def has(self, place: int) -> bool:
        """Whether the sample at this place is asked by this process."""
        return place // self.block % self.of == self.rank


@dataclass(frozen=True)
class Exam:
    """What every candidate is asked about: samples, with how many references, under a name of its own; with `questions`, one for each sample."""

    name: str
    params: Params
    work: Workspace
    samples: Sequence[Sample]
    shots: int
    questions: Sequence[Question] = ()
    _known: dict[tuple[str, str], Answers] = field(default_factory=dict)

    @cached_property
    def protocols(self) -> dict[str, Protocol]:
        """The protocols that the parameters name; questions have one of their own."""
        if self.questions:
            return {"multiple_choice": Protocol()}
        return {name: PROTOCOLS[name] for name in self.params.evaluate.protocols}

    def chat(self, place: int, candidate: Candidate, protocol: Protocol) -> Chat:
        """What a candidate is asked at a place."""
        if self.questions:
            return self.questions[place].chat(shots=self.shots)
        return protocol.chat(self.samples[place], shots=self.shots, base=candidate.base, form=candidate.form)

    def answers(self, candidate: Candidate, protocol: str) -> Answers:
        """The answers of a candidate under a protocol, named by all that they depend on: model, prompt, images and decoding."""
        key = (candidate.name, protocol)
        if key not in self._known:
            self._known[key] = Answers(self._home / f"{shown_name(*key)}-{self._hash(candidate, self.protocols[protocol])}")
        return self._known[key]

    def wanted(self, candidate: Candidate, protocol: str, share: Share) -> Callable[[int], bool]:
        """Whether the sample at a place is still to be asked by this process."""
        answers = self.answers(candidate, protocol)
        return lambda place: share.has(place) and self.samples[place].id not in answers

    def is_done(self, candidate: Candidate, protocol: str, share: Share | None = None) -> bool:
        """Whether nothing is left to ask."""
        return not any(map(self.wanted(candidate, protocol, share or Share()), range(len(self.samples))))

    def predictions(self, candidate: Candidate, protocol: str) -> Iterator[Prediction]:
        """What was answered, in the order of the samples, one by one."""
        told, reader = self.params.evaluate, self.protocols[protocol].reader(base=candidate.untaught)
        kept = self.answers(candidate, protocol).of(sample.id for sample in self.samples)
        for sample, answer in zip(self.samples, kept, strict=True):
            yield Prediction(
                sample.id, sample.dataset, sample.category, shown_name(candidate.name, protocol), sample.anomalous,
                answer.text, answer.truncated, answer.tokens, sample.visibility, sample.location, sample.type, reader, self.params.seed,
                answer.p_yes, answer.finish, answer.seconds if told.latency else None,
            )  # fmt: skip

    def choices(self, candidate: Candidate) -> Iterator[Choice]:
        """The letters that were answered, in the order of the questions."""
        kept = self.answers(candidate, "multiple_choice").of(sample.id for sample in self.samples)
        for question, answer in zip(self.questions, kept, strict=True):
            yield Choice(question, answer.text, letter_of(answer.text, question.options))

    def forget_others(self, candidate: Candidate) -> None:
        """Remove what was answered by an earlier model of this name, or about other images."""
        for protocol in self.protocols:
            own, name = self.answers(candidate, protocol).folder, shown_name(candidate.name, protocol)
            for folder in own.parent.glob(f"{name}-*"):
                if folder.name.rpartition("-")[0] == name and folder != own:
                    shutil.rmtree(folder, ignore_errors=True)

    @property
    def _home(self) -> Path:
        return self.work.checkpoints / "answers" / self.name

    def _hash(self, candidate: Candidate, protocol: Protocol) -> str:
        told = self.params.evaluate
        asked = (told.engine, told.batch_size, told.max_new_tokens, self.params.pa_sft.max_pixels, self.shots, PART, FORM, self.params.seed)
        prompts = [self.chat(place, candidate, protocol) for place in range(len(self.questions) or min(1, len(self.samples)))]
        settings = json.dumps([asked, prompts, protocol.pattern(base=candidate.untaught)])
        return hashlib.sha256((fingerprint(candidate.folder, self.samples) + settings).encode()).hexdigest()[:12]


class _Chats(Sequence[Chat]):
    """The chats of an exam, each made when it is asked for."""

    def __init__(self, exam: Exam, candidate: Candidate, protocol: Protocol) -> None:
        self.exam, self.candidate, self.protocol = exam, candidate, protocol

    def __len__(self) -> int:
        return len(self.exam.samples)

    def __getitem__(self, place: Any) -> Any:
        return self.exam.chat(place, self.candidate, self.protocol)


def ask_all(candidates: Sequence[Candidate], exams: Sequence[Exam]) -> dict[str, float]:
    """Ask what has no answer yet; for each candidate that was asked, the seconds that this took, shared evenly where processes worked together."""
    waiting = [one for one in candidates if not all(exam.is_done(one, protocol) for exam in exams for protocol in exam.protocols)]
    processes = _processes(exams[0].params) if waiting else 1
    start = time.perf_counter()
    if processes == 1:
        return {candidate.name: ask(candidate, exams, Share()) for candidate in waiting}
    _ask_in_processes(processes)
    for exam in exams:
        for candidate in candidates:
            for protocol in exam.protocols:
                exam.answers(candidate, protocol).reload()
    return {candidate.name: (time.perf_counter() - start) / len(waiting) for candidate in waiting}


def ask(candidate: Candidate, exams: Sequence[Exam], share: Share) -> float:
    """Ask a candidate what is left of this process's share; the seconds that it took."""
    start, engine = time.perf_counter(), None
    for exam in exams:
        for name, protocol in exam.protocols.items():
            if exam.is_done(candidate, name, share):
                continue
            engine = engine or _engine(candidate, exam)
            _ask(engine, candidate, exam, name, protocol, share)
    return time.perf_counter() - start


def _ask(engine: Engine, candidate: Candidate, exam: Exam, name: str, protocol: Protocol, share: Share) -> None:
    answers, parent = exam.answers(candidate, name), os.getppid()
    chats, wanted = _Chats(exam, candidate, protocol), exam.wanted(candidate, name, share)
    left = sum(map(wanted, range(len(chats))))
    with _bar(f"{shown_name(candidate.name, name):8}", total=left) as bar:
        for some in streamed(engine, chats, wanted, protocol.pattern(base=candidate.untaught)):
            bar.update(sum(map(wanted, some)))
            answers.add((exam.samples[place].id, answer) for place, answer in some.items())
            if share.of > 1 and os.getppid() != parent:
                raise Stopped("the process that started this one is gone.")


def streamed(engine: Engine, chats: Sequence[Chat], wanted: Callable[[int], bool], pattern: str | None) -> Iterator[dict[int, Generated]]:
    """The answers of an engine as they come, or of one that does not stream part by part."""
    stream = getattr(engine, "stream", None)
    if stream is not None:
        yield from stream(chats, wanted) if pattern is None else stream(chats, wanted, pattern=pattern)
        return
    if pattern is not None:
        raise ParamsError("evaluate.protocols: this engine cannot be held to a form. Leave out the constrained protocols, or use vllm.")
    for first in range(0, len(chats), PART):
        places = [place for place in range(first, min(first + PART, len(chats))) if wanted(place)]
        if places:
            yield dict(zip(places, engine([chats[place] for place in places], lambda count: None), strict=True))


def _engine(candidate: Candidate, exam: Exam) -> Engine:
    quiet_libraries()
    told, pixels = exam.params.evaluate, exam.params.pa_sft.max_pixels
    load = ENGINES[told.engine]
    return load(candidate.folder, batch_size=told.batch_size, max_new_tokens=told.max_new_tokens, max_pixels=pixels, images=1 + exam.shots)


def _processes(params: Params) -> int:
    told = os.environ.get(PROCESSES)
    if told is not None:
        if not told.isdecimal() or not int(told):
            raise ParamsError(f"${PROCESSES}: has to be a whole number above 0; found {told!r}.")
        return int(told)
    if params.evaluate.engine not in ("transformers", "vllm"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def _ask_in_processes(count: int) -> None:
    """Run this very command once for each share; when one fails the others are ended, and what all have answered stays."""
    root = Path(__file__).parents[1]
    workers = []
    try:
        for rank in range(count):
            own = {
                SHARE: f"{rank}/{count}",
                "CUDA_VISIBLE_DEVICES": _gpu(rank),
                "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            }
            workers.append(subprocess.Popen([sys.executable, "-m", "tasks.evaluate", *sys.argv[1:]], env={**os.environ, **own}))
        _wait(workers)
    finally:
        for worker in workers:
            with suppress(ProcessLookupError):
                worker.terminate()
            worker.wait()


def _wait(workers: Sequence["subprocess.Popen[bytes]"]) -> None:
    while any(worker.poll() is None for worker in workers):
        time.sleep(0.2)
        _require_success(workers)
    _require_success(workers)


def _require_success(workers: Sequence["subprocess.Popen[bytes]"]) -> None:
    for rank, worker in enumerate(workers):
        if worker.poll():
            raise ModelError(
                f"process {rank} of {len(workers)} ended with exit code {worker.returncode}; its own words are above. "
                "What was answered is kept: run the same command again when that is mended."
            )


def _gpu(rank: int) -> str:
    visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    return visible[rank] if rank < len(visible) else str(rank)


def _bar(label: str, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=label, unit=" images", mininterval=0.5 if sys.stderr.isatty() else 10.0)
