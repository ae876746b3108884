"""One system on prepared samples: the questions, the replies by whichever way the system is run, the predictions."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iadr1 import prompts
from iadr1.engines import ENGINES, Chat, images_of
from iadr1.errors import EngineError
from iadr1.images import content_hash
from iadr1.remote.asking import Asker, Client, Patience, Question
from iadr1.remote.pace import Pace
from iadr1.remote.pictures import VERSION
from iadr1.remote.purse import Price, Purse
from iadr1.remote.replies import Finish, Replies, Reply, hashed
from iadr1.remote.server import generated
from iadr1.report import Prediction
from iadr1.samples import Sample
from iadr1.systems.catalogue import Catalogue, Prompt, System
from iadr1.systems.contract import answers_of, prompt_text

LETTERS_A_TOKEN = 4
PART = 256  # chats that a model of this machine is handed at a time: what a kill loses at most

Done = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Exam:
    """A system by its name, and what it is asked: chats in the order of the samples."""

    catalogue: Catalogue
    name: str
    samples: Sequence[Sample]
    shots: int

    @property
    def system(self) -> System:
        """Its record."""
        return self.catalogue.system(self.name)

    def chats(self) -> list[Chat]:
        """What is asked, one chat a sample, with as many references as it has up to `shots`."""
        prompt = self.catalogue.prompts.get(self.system.prompt)
        return [chat(sample, self.shots, prompt, base=self.system.prompt == "base") for sample in self.samples]

    def questions(self, *run: object) -> list[Question]:
        """The questions with their keys and what they may cost; `run` is what else the answers depend on."""
        seen: dict[str, tuple[str, int]] = {}
        system, pictures = self.system, self.catalogue.pictures(self.system)
        asked = (system.provider, system.model, system.options, system.max_tokens, system.images and repr(pictures), VERSION, *run)

        def image(path: str) -> tuple[str, int]:
            if path not in seen:
                seen[path] = content_hash(path), pictures.tokens(path)
            return seen[path]

        def question(found: Chat) -> Question:
            text, images = prompt_text(found), [image(path) for path in images_of(found)]
            tokens = len(text) // LETTERS_A_TOKEN + sum(tokens for _, tokens in images)
            return Question(found, hashed(text, [content for content, _ in images], *asked), tokens, system.max_tokens)

        return [question(found) for found in self.chats()]

    def predictions(self, replies: Sequence[Reply]) -> list[Prediction]:
        """The replies beside the annotations they are judged by."""
        answers = [generated(reply) for reply in replies]
        return [
            Prediction(
                sample.id, sample.dataset, sample.category, self.name, sample.anomalous, answer.text, answer.truncated, answer.tokens,
                sample.visibility, sample.location, sample.type, self.system.reader, p_yes=answer.p_yes, finish=answer.finish, seconds=answer.seconds,
            )
            for sample, answer in zip(self.samples, answers, strict=True)
        ]  # fmt: skip


def chat(sample: Sample, shots: int, prompt: Prompt | None, *, base: bool) -> Chat:
    """What a system is asked about a sample: the project's prompt, or one of the catalogue."""
    references = sample.references[:shots]
    if prompt is None:
        return prompts.messages(sample, shots=len(references), base=base)
    text = (prompt.with_references if references else prompt.alone).replace("{count}", str(len(references)))
    images = {"{references}": references, "{image}": sample.images[-1:]}
    content: list[dict[str, str]] = []
    for piece in text.replace("{references}", "\0{references}\0").replace("{image}", "\0{image}\0").split("\0"):
        if piece in images:
            content += [{"type": "image", "image": path} for path in images[piece]]
        elif piece.strip():
            content.append({"type": "text", "text": piece.strip()})
    return [{"role": "user", "content": content}]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is still to be asked, and what it may cost: expected, and at most if every reply is as long as it may be."""

    questions: int
    kept: int
    tokens_in: int
    tokens_out: int
    paid: float
    cost: float
    most: float

    @classmethod
    def of(cls, questions: Sequence[Question], replies: Replies, system: System, price: Price) -> "Estimate":
        """From the sizes of images and texts; what was answered costs nothing more."""
        unique = {question.key: question for question in questions}
        kept = {key: reply for key in unique if (reply := replies.kept(key))}
        still = [question for key, question in unique.items() if key not in kept]
        tokens_in, tokens_out = sum(question.tokens_in for question in still), system.reply_tokens * len(still)
        purse = Purse(price)
        return cls(
            len(still), len(kept), tokens_in, tokens_out,
            paid=sum(purse.cost(reply, unique[key].tokens_in) for key, reply in kept.items()),
            cost=price.of(tokens_in, tokens_out), most=price.of(tokens_in, system.max_tokens * len(still)),
        )  # fmt: skip


def client(found: Catalogue, system: System, environment: Mapping[str, str], *, pace: Pace, concurrency: int, timeout: float) -> Client:
    """The client of a system's provider; address and key come from the environment."""
    provider = found.providers[system.provider]
    url = environment.get(provider.url_from or "") or provider.url
    key = next((environment[name] for name in provider.keys if environment.get(name)), None)
    common: dict[str, Any] = {"model": system.model, "pictures": found.pictures(system), "pace": pace, "timeout": timeout}
    if provider.protocol == "bedrock":
        from iadr1.remote.bedrock import Bedrock

        return Bedrock(url, options=_converse(system), concurrency=concurrency, **common)
    options = {"max_tokens": system.max_tokens, **system.options}
    if provider.protocol == "anthropic":
        from iadr1.remote.anthropic_messages import AnthropicMessages

        return AnthropicMessages(str(url), key=key, options=options, **common)
    from iadr1.remote.openai_chat import OpenAIChat

    return OpenAIChat(str(url).split()[0], key=key, options=options, **common)


def _converse(system: System) -> dict[str, Any]:
    """The options in Bedrock's words: what all models take has a place of its own, the rest goes to the model as it is."""
    common = {"maxTokens": system.max_tokens} | ({"temperature": system.options["temperature"]} if "temperature" in system.options else {})
    rest = {name: value for name, value in system.options.items() if name != "temperature"}
    return {"inferenceConfig": common} | ({"additionalModelRequestFields": rest} if rest else {})


def ask_remote(
    exam: Exam, asked: Sequence[Question], replies: Replies, *, patience: Patience, pace: Pace, timeout: float, purse: Purse, done: Done
) -> list[Reply]:
    """The replies of a system behind a network."""
    speaker = client(exam.catalogue, exam.system, os.environ, pace=pace, concurrency=patience.concurrency, timeout=timeout)
    return Asker(speaker, exam.name, patience, pace, replies, purse)(asked, done)


def ask_checkpoint(
    exam: Exam, asked: Sequence[Question], replies: Replies, *, checkpoint: Path, engine: str, batch_size: int, done: Done
) -> list[Reply]:
    """The replies of a model folder, part by part; a part that is answered is kept before the next is asked."""
    waiting = list(_open(asked, replies).values())
    done(len(asked) - len(waiting))
    if waiting:
        load = ENGINES[engine]
        model = load(checkpoint, batch_size=batch_size, max_new_tokens=exam.system.max_tokens, images=1 + exam.shots)
    for start in range(0, len(waiting), PART):
        part = waiting[start : start + PART]
        for question, answer in zip(part, model([question.chat for question in part], done), strict=True):
            finish: Finish = "length" if answer.truncated else "stop"
            replies.keep(question.key, Reply(answer.text, finish, 0, answer.tokens, answer.p_yes, answer.seconds))
    return _all(asked, replies)


def ask_process(exam: Exam, asked: Sequence[Question], replies: Replies, *, command: str, done: Done) -> list[Reply]:
    """The replies of an external program; each is kept as it comes."""
    waiting = _open(asked, replies)
    done(len(asked) - len(waiting))

    def keep(key: str, reply: Reply) -> None:
        replies.keep(key, reply)
        done(1)

    if waiting:
        answers_of(command, [(key, question.chat) for key, question in waiting.items()], keep)
    return _all(asked, replies)


def _open(asked: Sequence[Question], replies: Replies) -> dict[str, Question]:
    return {question.key: question for question in asked if replies.kept(question.key) is None}


def _all(asked: Sequence[Question], replies: Replies) -> list[Reply]:
    found = [replies.kept(question.key) for question in asked]
    if not all(found):
        raise EngineError("replies vanished from their folder while they were being written. Run the same command again.")
    return [reply for reply in found if reply]


def identity(folder: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of a model folder's files: another model has others."""
    stats = ((path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file())
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
